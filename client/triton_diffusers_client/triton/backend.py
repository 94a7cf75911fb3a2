"""Requests to a Triton without a gateway."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from functools import partial
from typing import Any

from triton_diffusers_client.address import Address
from triton_diffusers_client.attempts import Attempts, checked_timeout
from triton_diffusers_client.errors import (
    ClientError,
    ConnectionFailedError,
    NotFoundError,
    NotSupportedError,
    RequestTimeoutError,
    UnreachableError,
)
from triton_diffusers_client.fields import JOBS_INPUTS
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import Job
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.request import Request
from triton_diffusers_client.triton.answers import generation_from, progress_from
from triton_diffusers_client.triton.cancellation import Cancellation
from triton_diffusers_client.triton.job import OwnTritonJob, TritonJob
from triton_diffusers_client.triton.statuses import is_unknown_model
from triton_diffusers_client.triton.tensors import Array, encode
from triton_diffusers_client.triton.transport import open_transport

_JOBS_MODEL = "jobs"
# ``jobs`` normally answers in milliseconds.
_JOBS_TIMEOUT = 10.0
# A request on its way may reach the server after the call that cancels it, so that is repeated.
_MAX_CANCEL_SECONDS = 30.0
_CANCEL_PAUSE = 0.2


class TritonBackend:
    """See ``backend.Backend``. Unfinished requests are cancelled when it is closed, or the program ends."""

    def __init__(self, address: Address, headers: Mapping[str, str], attempts: Attempts) -> None:
        self._attempts = attempts
        self._transport = open_transport(address, headers)
        # Models that the server does not have.
        self._missing: set[str] = set()
        self._lock = threading.Lock()
        self._under_way: dict[Cancellation, str] = {}
        self._own_jobs: weakref.WeakValueDictionary[str, OwnTritonJob] = weakref.WeakValueDictionary()
        # The first stops new requests, the second all calls: in between, those under way are cancelled.
        self._closing = self._closed = False
        _OPEN.add(self)
        # True once the server has been reached.
        self._met = False

    def generate(self, request: Request, timeout: float | None) -> Generation:
        """See ``Client.generate``."""
        _check_extras([request])
        return self._generate(request, self._attempts.within(timeout), Cancellation())

    def submit(self, requests: Sequence[Request], timeout: float | None) -> list[Job]:
        """Send each request in a thread of its own."""
        _check_extras(requests)
        attempts = self._attempts.within(timeout)
        return [self._start(request, attempts) for request in requests]

    def job(self, name: str) -> Job:
        """Return the job that this client has sent, or that of another one. Raises ``NotFoundError``."""
        own = self._own_jobs.get(name)
        if own is not None:
            return own
        self.progress(name, preview=False, timeout=None)
        return TritonJob(name, look=partial(self._look, name), cancel=partial(self._cancel_others, name))

    def as_completed(self, jobs: Sequence[Job], timeout: float | None) -> Iterator[Job]:
        """See ``Client.as_completed``."""
        waiting = {job.outcome: job for job in jobs if isinstance(job, OwnTritonJob)}
        deadline = None if timeout is None else time.monotonic() + timeout
        while waiting:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended, _ = wait(waiting, left, FIRST_COMPLETED)
            if not ended:
                raise RequestTimeoutError(f"{len(waiting)} jobs are not done after {timeout} s")
            for outcome in ended:
                yield waiting.pop(outcome)

    def jobs(self, states: Sequence[JobState], task_id: str, limit: int, timeout: float | None) -> list[Progress]:
        """See ``Client.jobs``."""
        found = self._ask("list", timeout=timeout)
        wanted = [job for job in found if (not states or job.state in states) and task_id in ("", job.task_id)]
        return wanted[:limit]

    def progress(self, name: str, *, preview: bool, timeout: float | None) -> Progress:
        """See ``Client.progress``."""
        return self._newest("progress", name, preview=preview, timeout=timeout)

    def cancel(self, name: str, *, timeout: float | None) -> Progress:
        """See ``Client.cancel``."""
        return self._newest("cancel", name, timeout=timeout)

    def close(self) -> None:
        """Cancel unfinished requests, here and on the server, and close the connections."""
        with self._lock:
            self._closing, was_closing = True, self._closing
            under_way = dict(self._under_way)
        if was_closing:
            return
        with suppress(ClientError):  # a server that does not answer one call does not answer the others
            self._end(under_way)
        self._closed = True
        self._transport.close()
        _OPEN.discard(self)

    def _start(self, request: Request, attempts: Attempts) -> OwnTritonJob:
        job = OwnTritonJob(
            request.task_id,
            run=partial(self._generate, request, attempts),
            look=partial(self._look, request.task_id),
            cancel=lambda cancellation: self._end({cancellation: request.task_id}),
        )
        self._own_jobs[request.task_id] = job
        return job

    def _cancel_others(self, task_id: str) -> bool:
        with suppress(NotFoundError):
            return bool(self._ask("cancel", task_id, retries=0))
        return False

    def _look(self, task_id: str, preview: bool) -> Progress:
        return self._newest("progress", task_id, preview=preview, retries=0)

    def _generate(self, request: Request, attempts: Attempts, cancellation: Cancellation) -> Generation:
        def attempt(timeout: float | None) -> Mapping[str, Array]:
            try:
                return self._draw(request, cancellation, timeout)
            except BaseException as error:
                # The server does not notice by itself that the caller has stopped waiting.
                if not isinstance(error, ClientError) or _leaves_the_job_running(error):
                    with suppress(ClientError):
                        self._cancel_on_server({cancellation: request.task_id})
                raise

        with self._lock:
            if self._closing:
                raise ClientError("the client is closed")
            self._under_way[cancellation] = request.task_id
        try:
            return generation_from(attempts.run(attempt, sleep=cancellation.sleep, worth_it=self._worth_a_retry))
        finally:
            with self._lock:
                del self._under_way[cancellation]

    def _draw(self, request: Request, cancellation: Cancellation, timeout: float | None) -> Mapping[str, Array]:
        """Send a request to the first of its models that the server has; a missing model is remembered."""
        tensors = encode(request.values, request.fields, batched=True)
        *preferred, last = request.models
        for model in preferred:
            if model not in self._missing:
                try:
                    return self._infer(model, tensors, cancellation, timeout)
                except NotFoundError as error:
                    if not is_unknown_model(error, model):
                        raise
                    self._missing.add(model)
        return self._infer(last, tensors, cancellation, timeout)

    def _end(self, requests: Mapping[Cancellation, str]) -> bool:
        """Cancel requests here and on the server; return True if the server knew them all. Raises a ``ClientError``."""
        for cancellation in requests:
            cancellation.request()
        try:
            return self._cancel_on_server(requests)
        finally:
            for cancellation in requests:
                cancellation.cancel()

    def _cancel_on_server(self, requests: Mapping[Cancellation, str]) -> bool:
        """Cancel tasks, also those that are still on their way; see ``_end``."""
        deadline = time.monotonic() + _MAX_CANCEL_SECONDS
        left, known = dict(requests), set()
        while True:
            for cancellation, task_id in list(left.items()):
                may_arrive = cancellation.unanswered  # as it was before the server was asked
                jobs: list[Progress] = []
                with suppress(NotFoundError):
                    # Cancelling does not wait for an unreachable server, whose jobs are lost anyway.
                    jobs = self._ask("cancel", task_id, retries=0)
                if jobs:
                    known.add(cancellation)
                if not may_arrive or not all(job.state.ended for job in jobs):
                    del left[cancellation]
            if not left or time.monotonic() > deadline:
                return len(known) == len(requests)
            time.sleep(_CANCEL_PAUSE)

    def _worth_a_retry(self, error: ClientError) -> bool:
        return self._met or not isinstance(error, UnreachableError)

    def _newest(
        self,
        action: str,
        task_id: str,
        *,
        preview: bool = False,
        retries: int | None = None,
        timeout: float | None = None,
    ) -> Progress:
        jobs = self._ask(action, task_id, preview=preview, retries=retries, timeout=timeout)
        if not jobs:
            raise NotFoundError(f"task_id: no job of {task_id!r} is known")
        return jobs[0]

    def _ask(
        self,
        action: str,
        task_id: str = "",
        *,
        preview: bool = False,
        retries: int | None = None,
        timeout: float | None = None,
    ) -> list[Progress]:
        values: Mapping[str, Any] = {"action": action, "task_id": task_id, "preview": preview}
        tensors = encode(values, JOBS_INPUTS, batched=False)
        attempts = Attempts(
            checked_timeout(timeout) or _JOBS_TIMEOUT, self._attempts.retries if retries is None else retries
        )
        ask = partial(self._infer, _JOBS_MODEL, tensors, Cancellation())
        return progress_from(attempts.run(ask, worth_it=self._worth_a_retry))

    def _infer(
        self, model: str, tensors: Mapping[str, Array], cancellation: Cancellation, timeout: float | None
    ) -> Mapping[str, Array]:
        if self._closed:
            raise ClientError("the client is closed")
        with cancellation.calling(lambda: self._transport.call(model, tensors, timeout)) as call:
            try:
                result = call.result()
            except ClientError as error:
                self._met = self._met or not isinstance(error, UnreachableError)
                raise
        self._met = True
        return result


def _check_extras(requests: Sequence[Request]) -> None:
    for name in sorted({name for request in requests for name in request.extras}):
        raise NotSupportedError(f"{name}: only a gateway has this option")


def _leaves_the_job_running(error: ClientError) -> bool:
    """Return True if an error ended only the wait, not the job. An unreachable server has no job."""
    return isinstance(error, ConnectionFailedError | RequestTimeoutError) and not isinstance(error, UnreachableError)


# Backends that are not closed yet.
_OPEN: weakref.WeakSet[TritonBackend] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close open backends when the program ends, since nothing waits for their threads' jobs."""
    for backend in list(_OPEN):
        backend.close()
