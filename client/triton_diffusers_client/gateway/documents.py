"""JSON documents of the gateway: requests, jobs and results."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self

from triton_diffusers_client.errors import InvalidRequestError, ServerError
from triton_diffusers_client.gateway.effects import Event, Reply
from triton_diffusers_client.generation import Generation, images_of
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.request import Request

# Forms of the reply; a gateway's results are fetched by their URLs.
_NOT_SENT = ("return_images", "use_base64")


def document_of(request: Request, timeout_seconds: float | None) -> dict[str, Any]:
    """Return a request as the gateway takes it: images as base64, without what is left to the gateway."""
    document: dict[str, Any] = dict(request.extras)
    for field in request.fields:
        if field.name in _NOT_SENT or field.name not in request.values:
            continue
        value = request.values[field.name]
        if field.datatype != "BYTES":
            document[field.name] = list(value) if isinstance(value, tuple) else value
        elif value:
            name = f"{field.name}_base64"
            if request.values.get(name):
                raise InvalidRequestError(f"{field.name} / {name}: both hold an image; give one of the two")
            document[name] = [_base64(each) for each in value] if isinstance(value, tuple) else _base64(value)
    if request.model is not None:
        document["model"] = request.model
    if timeout_seconds is not None:
        document.setdefault("timeout_seconds", timeout_seconds)
    return document


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read_object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of a reply. Raises ``ServerError``."""
    try:
        document = json.loads(reply.content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ServerError("the answer is not a JSON object: is this a gateway?")
    return document


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the gateway has shown it; ``now`` is the gateway's time then."""

    document: Mapping[str, Any]
    now: float

    @classmethod
    def from_reply(cls, reply: Reply) -> Self:
        """Read the job of a reply. Raises ``ServerError``."""
        return cls.from_document(read_object(reply), time_of(reply))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], now: float) -> Self:
        """Return the view of a document. Raises ``ServerError`` if it is not a job's."""
        try:
            JobState(document["state"])
        except (KeyError, ValueError) as error:
            raise ServerError(f"the answer is not a job that this client knows: {error}") from error
        return cls(document, now)

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.document["id"])

    @property
    def state(self) -> JobState:
        """The job's state."""
        return JobState(self.document["state"])

    def advanced(self, event: Event) -> Self:
        """Return the view after an event of progress. Raises ``ServerError``."""
        try:
            data = json.loads(event.data)
            news = {name: data[name] for name in ("step", "steps", "images_done")}
            now = float(data["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"the event is invalid: {error}") from error
        return type(self)({**self.document, "progress": {**self.document["progress"], **news}}, now)

    def progress(self, preview: EncodedImage | None = None) -> Progress:
        """Return the job's progress. Raises ``ServerError``."""
        job = self.document
        try:
            position = job.get("position") or {}
            made = job["progress"]
            return Progress(
                id=job["id"],
                task_id=job["task_id"],
                model=job["model"],
                state=self.state,
                step=made["step"],
                steps=made["steps"],
                image_num=job.get("image_num", 0),
                images_done=made["images_done"],
                elapsed_seconds=max(0.0, (job["ended"] or self.now) - job["created"]),
                error_msg=(job["error"] or {}).get("message", ""),
                position=position.get("ahead"),
                wait_seconds=position.get("wait_seconds"),
                preview=preview,
            )
        except (KeyError, TypeError) as error:
            raise ServerError(f"the answer is not a job that this client knows: {error!r}") from error

    def generation(self, images: Sequence[bytes], control_images: Sequence[bytes]) -> Generation:
        """Return the result with its images. Raises ``ServerError``."""
        job = self.document
        try:
            result = job["result"]
            seed = int(result["seed"])
            flags = tuple(bool(image["is_nsfw"]) for image in result["images"])
            return Generation(
                job_id=job["id"],
                task_id=job["task_id"],
                seed=seed,
                prompt=result["prompt"],
                images=images_of(seed, tuple(images), flags if images else ()),
                image_url=tuple(image["url"] for image in result["images"]),
                oss_url=tuple(result["oss_url"]),
                is_nsfw=flags,
                parameters=result["parameters"],
                use_blade=result["use_blade"],
                profile=result["profile"],
                warnings=tuple(job["warnings"]),
                queue_seconds=result["queue_seconds"],
                run_seconds=result["run_seconds"],
                control_images=tuple(EncodedImage(image) for image in control_images),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"the result is invalid: {error!r}") from error


def time_of(reply: Reply) -> float:
    """Return the gateway's time of a reply, or this machine's if it does not tell."""
    try:
        return parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
