"""The client."""

from __future__ import annotations

import atexit
import math
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from triton_diffusers_client.attempts import Attempts
from triton_diffusers_client.cancellation import Cancellation
from triton_diffusers_client.errors import (
    ClientError,
    ConnectionFailedError,
    NotFoundError,
    RequestTimeoutError,
    UnreachableError,
)
from triton_diffusers_client.fields import JOBS_INPUTS
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.headers import make_headers
from triton_diffusers_client.job import Job
from triton_diffusers_client.options import Options
from triton_diffusers_client.progress import Progress
from triton_diffusers_client.request import Request
from triton_diffusers_client.statuses import is_unknown_model
from triton_diffusers_client.tensors import Array, encode
from triton_diffusers_client.transport import Address, open_transport

DEFAULT_URL = "127.0.0.1:8000"
# An hour: fifty steps of a large model on a CPU, behind others, take their time.
DEFAULT_TIMEOUT = 3600.0
# About 40 seconds with their pauses, in which a server restarts a dead model process.
DEFAULT_RETRIES = 8

# Longer timeouts would overflow the system's clocks.
_MAX_TIMEOUT = 1e9

_JOBS_MODEL = "jobs"
# ``jobs`` normally answers in milliseconds.
_JOBS_TIMEOUT = 10.0
# A request on its way may reach the server after the call that cancels it, so that is repeated.
_MAX_CANCEL_SECONDS = 30.0
_CANCEL_PAUSE = 0.2


class Client:
    """A connection to a server; any number of threads may share one.

    ``url``: ``[http://]host[:8000]``, ``https://…``, ``grpc://host[:8001]`` or ``grpcs://…``.
    ``model``: the model that draws, unless a call names another; None: ``ensemble``, which translates Chinese prompts,
    or ``sd_base`` where the server has no ensemble.
    ``timeout``: seconds that one request may take, retries included; None: any time. The server knows of it too.
    ``retries``: how often a request is sent again after an error that may pass; 0: never.
    ``api_key``: sent with every call, as ``authorization: Bearer …``; ``headers``: others to send (gRPC: metadata).

    Requests that are unfinished when the client is closed, or the program ends, are cancelled on the server.

    Raises ``ValueError`` for an invalid argument; a server that cannot be reached is noticed by the first call, which
    raises ``UnreachableError`` at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._attempts = Attempts(_checked_timeout(timeout), retries)
        self._transport = open_transport(Address.parse(url), make_headers(headers, api_key))
        self._model = model
        # Models that the server does not have.
        self._missing: set[str] = set()
        self._lock = threading.Lock()
        self._under_way: dict[Cancellation, str] = {}
        # The first stops new requests, the second all calls: in between, those under way are cancelled.
        self._closing = self._closed = False
        _OPEN.add(self)
        # True once the server has been reached.
        self._met = False

    def generate(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Draw, and wait for the images.

        ``model`` and ``timeout`` (seconds) replace the client's for this call. Raises a ``ClientError``; ``TypeError``
        for an option that does not exist. If the time is over, on Ctrl-C and on any other exception that ends the
        waiting, the job is cancelled on the server too.
        """
        return self._generate(
            Request.build(model or self._model, prompt, options), self._attempts_for(timeout), Cancellation()
        )

    def submit(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> Job:
        """Draw in the background. Raises at once for options that ``generate`` would refuse before sending them."""
        request = Request.build(model or self._model, prompt, options)
        return Job(
            request.task_id,
            run=partial(self._generate, request, self._attempts_for(timeout)),
            look=partial(self._newest, "progress", request.task_id, retries=0),
            cancel=lambda cancellation: self._end({cancellation: request.task_id}),
        )

    def progress(self, task_id: str, *, preview: bool = False, timeout: float | None = None) -> Progress:
        """Return the progress of a task (of its newest job, if several have the id).

        ``preview`` asks the server for a small image of the first unfinished image; it is in a later answer, after
        the next step. Raises ``NotFoundError`` for a task that the server does not know (any more).
        """
        return self._newest("progress", task_id, preview=preview, timeout=timeout)

    def cancel(self, task_id: str, *, timeout: float | None = None) -> Progress:
        """Cancel all jobs of a task in flight; return its newest job as it was at that moment.

        Raises ``NotFoundError`` for a task that the server does not know (any more).
        """
        return self._newest("cancel", task_id, timeout=timeout)

    def jobs(self, *, timeout: float | None = None) -> list[Progress]:
        """Return the jobs that the server knows, newest first: those in flight and the last ones that ended."""
        return self._ask("list", timeout=timeout)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _attempts_for(self, timeout: float | None) -> Attempts:
        return Attempts(_checked_timeout(timeout), self._attempts.retries) if timeout is not None else self._attempts

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
            return Generation.from_tensors(
                attempts.run(attempt, sleep=cancellation.sleep, worth_it=self._worth_a_retry)
            )
        finally:
            with self._lock:
                del self._under_way[cancellation]

    def _draw(self, request: Request, cancellation: Cancellation, timeout: float | None) -> Mapping[str, Array]:
        """Send a request to the first of its models that the server has; a missing model is remembered."""
        *preferred, last = request.models
        for model in preferred:
            if model not in self._missing:
                try:
                    return self._infer(model, request.tensors, cancellation, timeout)
                except NotFoundError as error:
                    if not is_unknown_model(error, model):
                        raise
                    self._missing.add(model)
        return self._infer(last, request.tensors, cancellation, timeout)

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
            _checked_timeout(timeout) or _JOBS_TIMEOUT, self._attempts.retries if retries is None else retries
        )
        ask = partial(self._infer, _JOBS_MODEL, tensors, Cancellation())
        return Progress.list_from_tensors(attempts.run(ask, worth_it=self._worth_a_retry))

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


def _leaves_the_job_running(error: ClientError) -> bool:
    """Return True if an error ended only the wait, not the job. An unreachable server has no job."""
    return isinstance(error, ConnectionFailedError | RequestTimeoutError) and not isinstance(error, UnreachableError)


# Clients that are not closed yet.
_OPEN: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close open clients when the program ends, since nothing waits for their threads' jobs."""
    for client in list(_OPEN):
        client.close()


def _checked_timeout(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds) or seconds <= 0:
        raise ValueError(f"timeout: {seconds!r} is invalid: it must be a number of seconds, more than 0")
    return float(seconds) if seconds < _MAX_TIMEOUT else None
