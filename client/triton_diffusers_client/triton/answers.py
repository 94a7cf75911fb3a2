"""Triton's answers: generations and progress, from tensors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from triton_diffusers_client.errors import ServerError
from triton_diffusers_client.fields import CONTROL_OUTPUTS, JOBS_OUTPUTS, OUTPUTS
from triton_diffusers_client.generation import Generation, images_of
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.triton.tensors import Array, decode

# An ensemble puts this before the outputs that bear an input's name.
_ENSEMBLE_PREFIX = "reply_"


def generation_from(tensors: Mapping[str, Array]) -> Generation:
    """Return the generation of an answer. Raises ``ServerError`` if it is invalid."""
    sent = {name.removeprefix(_ENSEMBLE_PREFIX): array for name, array in tensors.items()}
    # Only the models with ControlNets have the outputs of those.
    values = decode(sent, (*OUTPUTS, *(output for output in CONTROL_OUTPUTS if output.name in sent)))
    try:
        seed = int(values["seed"])
        encoded = values["images"] or tuple(base64.urlsafe_b64decode(text) for text in values["images_base64"])
        return Generation(
            job_id=values["task_id"].decode(),
            task_id=values["task_id"].decode(),
            seed=seed,
            prompt=values["prompt"].decode(),
            # Without return_images there is a flag for each image, and none of the images.
            images=images_of(seed, encoded, values["is_nsfw"] if encoded else ()),
            image_url=tuple(url.decode() for url in values["image_url"]),
            oss_url=tuple(url.decode() for url in values["oss_url"]),
            is_nsfw=values["is_nsfw"],
            parameters=json.loads(values["parameters"]),
            use_blade=values["use_blade"],
            profile=values["profile"].decode(),
            warnings=tuple(warning.decode() for warning in values["warnings"]),
            queue_seconds=values["queue_seconds"],
            run_seconds=values["run_seconds"],
            control_images=tuple(
                EncodedImage(base64.urlsafe_b64decode(text)) for text in values.get("control_images_base64", ())
            ),
        )
    except ValueError as error:
        raise ServerError(f"the answer is invalid: {error}") from error


def progress_from(tensors: Mapping[str, Array]) -> list[Progress]:
    """Return the jobs of an answer of ``jobs``, newest first. Raises ``ServerError`` if it is invalid."""
    columns = decode(tensors, JOBS_OUTPUTS)
    try:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [
            Progress(
                **row
                | {name: row[name].decode() for name in ("task_id", "model", "error_msg")}
                | {
                    "id": row["task_id"].decode(),
                    "state": JobState(row["state"].decode()),
                    "preview": EncodedImage(base64.urlsafe_b64decode(row["preview"])) if row["preview"] else None,
                }
            )
            for row in rows
        ]
    except ValueError as error:
        raise ServerError(f"the answer of jobs is invalid: {error}") from error
