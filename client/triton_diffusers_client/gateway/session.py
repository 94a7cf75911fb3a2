"""Exchanges with a gateway, independent of how they are performed."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from triton_diffusers_client.address import Address
from triton_diffusers_client.attempts import Attempts, seconds_left
from triton_diffusers_client.errors import (
    ClientError,
    ConnectionFailedError,
    NotFoundError,
    RequestTimeoutError,
    UnreachableError,
)
from triton_diffusers_client.gateway.documents import JobView, document_of, read_object, time_of
from triton_diffusers_client.gateway.effects import ANSWER_SECONDS, Flow, Reply, Send, Sleep
from triton_diffusers_client.gateway.faults import error_of_job, error_of_reply
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.request import Request

logger = logging.getLogger(__name__)

_JOBS = "/api/jobs"
_PAGE = 200
# A connection that is silent for longer is cut by some proxies.
_WAIT_SECONDS = 20.0
# A call that waits for nothing has at least this time, whatever the caller's timeout is.
_MIN_CALL_SECONDS = 10.0
_QUICK_SECONDS = 1.0


class Session:
    """A client's exchanges with a gateway. Methods are flows, see ``effects``; they raise ``ClientError``."""

    def __init__(self, address: Address, headers: Mapping[str, str], attempts: Attempts) -> None:
        self.address = address
        self.headers = headers
        self.attempts = attempts
        # True once the server has been reached: one that never answered is not waited for.
        self._met = False

    def url(self, path: str) -> str:
        """Return the URL of a path of the gateway."""
        return f"{self.address.url}{path}"

    def call(self, send: Send, deadline: float | None = None, *, retries: int | None = None) -> Flow[Reply]:
        """Send a request, again after errors that may pass, until ``deadline``; return the reply, of status 2xx.

        Every request may be repeated: those that create jobs have an ``Idempotency-Key``.
        """
        attempts = self.attempts if retries is None else Attempts(None, retries)
        retry = 0
        while True:
            left = seconds_left(deadline)
            seconds = send.seconds if left is None else min(send.seconds, left)
            try:
                return (yield from self._send(send, seconds))
            except ClientError as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise RequestTimeoutError("the time for this request is over") from error
                retry += 1
                worth_it = self._met or not isinstance(error, ConnectionFailedError)
                pause = attempts.pause_after(error, retry, deadline, worth_it=worth_it)
            yield Sleep(pause)

    def _send(self, send: Send, seconds: float) -> Flow[Reply]:
        reply: Reply = yield Send(send.method, send.url, send.headers, send.params, send.content, seconds)
        self._met = True
        if not 200 <= reply.status < 300:
            raise error_of_reply(reply)
        return reply

    def _own(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, seconds: float = ANSWER_SECONDS
    ) -> Send:
        return Send(method, self.url(path), self.headers, params or {}, seconds=seconds)

    def submit(
        self, requests: Sequence[Request], timeout: float | None, key: str, deadline: float | None, retries: int | None
    ) -> Flow[list[JobView]]:
        """Create a job for each request, all or none; with the ``key`` of an earlier call, return that call's jobs."""
        documents = [document_of(request, timeout) for request in requests]
        alone = len(documents) == 1
        path, body = (_JOBS, documents[0]) if alone else (f"{_JOBS}/batch", {"jobs": documents})
        headers = {**self.headers, "content-type": "application/json", "idempotency-key": key}
        send = Send("POST", self.url(path), headers, content=json.dumps(body).encode())
        reply = yield from self.call(send, deadline, retries=retries)
        now, answer = time_of(reply), read_object(reply)
        return [JobView.from_document(job, now) for job in ([answer] if alone else answer.get("jobs", ()))]

    def generate(self, request: Request, timeout: float | None) -> Flow[Generation]:
        """Create a job and return its images; cancel it if the waiting ends before."""
        deadline = None if timeout is None else time.monotonic() + timeout
        key = new_key()
        job_id = ""
        try:
            (view,) = yield from self.submit([request], timeout, key, deadline, None)
            job_id = view.id
            view = yield from self.wait(view.id, deadline, view)
            if not view.state.ended:
                raise RequestTimeoutError(f"job {view.id} is not done after {timeout:g} s")
            return (yield from self.result(view, with_images=bool(request.values["return_images"])))
        except GeneratorExit:
            raise
        except BaseException as error:
            if job_id or not isinstance(error, ClientError) or _may_have_been_sent(error):
                yield from self._abandon(request, timeout, key, job_id)
            raise

    def _abandon(self, request: Request, timeout: float | None, key: str, job_id: str) -> Flow[None]:
        """Cancel a job nobody waits for. Its id may have been lost on the way: the key finds it."""
        try:
            deadline = time.monotonic() + _MIN_CALL_SECONDS
            if not job_id:
                (view,) = yield from self.submit([request], timeout, key, deadline, 0)
                job_id = view.id
            yield from self.cancel(job_id, deadline, retries=0)
        except ClientError as error:
            logger.debug("job %s is not cancelled: %s", job_id, error)

    def view(self, job_id: str, wait: float = 0.0, deadline: float | None = None) -> Flow[JobView]:
        """Return a job, with ``wait`` when it has ended or the seconds are over."""
        params = {"wait": f"{wait:g}"} if wait > 0 else {}
        reply = yield from self.call(self._own("GET", _path(job_id), params, ANSWER_SECONDS + wait), deadline)
        return JobView.from_reply(reply)

    def wait(self, job_id: str, deadline: float | None, view: JobView | None = None) -> Flow[JobView]:
        """Return a job when it has ended or the time is over."""
        while view is None or not view.state.ended:
            began = time.monotonic()
            left = None if deadline is None else deadline - began
            if view is not None and left is not None and left <= 0:
                return view
            seconds = _WAIT_SECONDS if left is None else max(0.0, min(_WAIT_SECONDS, left))
            call_deadline = None if deadline is None else max(deadline, began + _MIN_CALL_SECONDS)
            view = yield from self.view(job_id, seconds, call_deadline)
            if not view.state.ended and time.monotonic() - began < min(_QUICK_SECONDS, seconds):
                yield Sleep(min(_QUICK_SECONDS, seconds))  # a gateway that lets nobody wait
        return view

    def result(self, view: JobView, *, with_images: bool = True) -> Flow[Generation]:
        """Return the result of an ended job, or raise its error."""
        if view.state is not JobState.SUCCEEDED:
            raise error_of_job(view.document)
        result = view.document.get("result") or {}
        images: list[bytes] = []
        control_images: list[bytes] = []
        if with_images:
            for kind, made in (("images", images), ("control_images", control_images)):
                for image in result.get(kind, ()):
                    reply = yield from self.call(self._image(view, image["url"]))
                    made.append(reply.content)
        return view.generation(images, control_images)

    def _image(self, view: JobView, url: str) -> Send:
        """Return the request for an image. A gateway's own image is asked for where the gateway was reached.

        An image of another host, such as a store's, is asked for without the API key.
        """
        base = str(view.document["links"]["self"]).removesuffix(f"/api/jobs/{view.id}")
        if url.startswith(f"{base}/api/jobs/"):
            return Send("GET", self.url(url.removeprefix(base)), self.headers)
        return Send("GET", url)

    def preview(self, job_id: str) -> Flow[EncodedImage | None]:
        """Return a small image of the first unfinished image, if there is one yet; ask for one."""
        reply = yield from self.call(self._own("GET", f"{_path(job_id)}/preview"), retries=0)
        return EncodedImage(reply.content) if reply.status == 200 and reply.content else None

    def status(self, view: JobView, *, preview: bool) -> Flow[Progress]:
        """Return the progress of a job that was just asked for, with ``preview`` if there is one."""
        image = None
        if preview and view.state is JobState.RUNNING:
            image = yield from self.preview(view.id)
        return view.progress(image)

    def cancel(self, job_id: str, deadline: float | None = None, *, retries: int | None = None) -> Flow[JobView]:
        """Cancel a job."""
        reply = yield from self.call(self._own("POST", f"{_path(job_id)}/cancel"), deadline, retries=retries)
        return JobView.from_reply(reply)

    def delete(self, job_id: str) -> Flow[None]:
        """Delete an ended job. One that is gone already was deleted by an attempt whose reply was lost."""
        yield from self.view(job_id)
        try:
            yield from self.call(self._own("DELETE", _path(job_id)))
        except NotFoundError:
            return

    def find(self, name: str, deadline: float | None = None) -> Flow[JobView]:
        """Return the job of an id, or the newest one with a label."""
        try:
            return (yield from self.view(name, deadline=deadline))
        except NotFoundError:
            found = yield from self.jobs((), name, 1)
            if not found:
                raise
            return found[0]

    def jobs(
        self, states: Sequence[str], task_id: str, limit: int | None, deadline: float | None = None
    ) -> Flow[list[JobView]]:
        """Return jobs, the newest first: those in one of the states, with this label."""
        found: list[JobView] = []
        cursor: int | None = None
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            params: dict[str, Any] = {"limit": size, "state": [str(state) for state in states]}
            params |= {"task_id": task_id} if task_id else {}
            params |= {"cursor": cursor} if cursor is not None else {}
            reply = yield from self.call(self._own("GET", _JOBS, params), deadline)
            document, now = read_object(reply), time_of(reply)
            found += [JobView.from_document(job, now) for job in document.get("jobs", ())]
            cursor = document.get("cursor")
            if cursor is None:
                break
        return found


def new_key() -> str:
    """Return a new ``Idempotency-Key``."""
    return uuid.uuid4().hex


def _path(job_id: str) -> str:
    return f"{_JOBS}/{quote(job_id, safe='')}"


def _may_have_been_sent(error: ClientError) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, UnreachableError)
