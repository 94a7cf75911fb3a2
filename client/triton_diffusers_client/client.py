"""The client."""

from __future__ import annotations

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
from triton_diffusers_client.job import Job
from triton_diffusers_client.options import Options
from triton_diffusers_client.progress import Progress
from triton_diffusers_client.request import Request
from triton_diffusers_client.tensors import Array, encode
from triton_diffusers_client.transport import Address, open_transport

DEFAULT_URL = "127.0.0.1:8000"
DEFAULT_MODEL = "sd_base"
# An hour: fifty steps of a large model on a CPU, behind others, take their time.
DEFAULT_TIMEOUT = 3600.0
# With the pauses between them about 40 seconds: a server mends a model whose process died in that time.
DEFAULT_RETRIES = 8

_JOBS_MODEL = "jobs"
# ``jobs`` answers in milliseconds, or something is wrong.
_JOBS_TIMEOUT = 10.0


class Client:
    """A connection to a server; any number of threads may share one.

    ``url``: ``[http://]host[:8000]``, ``https://…``, ``grpc://host[:8001]`` or ``grpcs://…``.
    ``model``: the model that draws, unless a call names another.
    ``timeout``: seconds that one request may take, retries included; None: any time.
    ``retries``: how often a request is sent again after an error that may pass; 0: never.

    Raises ``ValueError`` for a ``url`` that is none; a server that is not there is noticed by the first call, which
    raises ``UnreachableError`` at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        timeout: float | None = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self._transport = open_transport(Address.parse(url))
        self._model = model
        self._attempts = Attempts(timeout, retries)
        self._closed = False
        # Whether the server has ever been reached.
        self._met = False

    def generate(self, prompt: str, *, model: str | None = None, **options: Unpack[Options]) -> Generation:
        """Draw, and wait for the pictures.

        Raises a ``ClientError``; ``TypeError`` for an option that does not exist. If the time is over, or on Ctrl-C,
        the job is cancelled on the server too.
        """
        return self._generate(Request.build(model or self._model, prompt, options), Cancellation())

    def submit(self, prompt: str, *, model: str | None = None, **options: Unpack[Options]) -> Job:
        """Draw in the background. Raises at once for options that ``generate`` would refuse before sending them."""
        request = Request.build(model or self._model, prompt, options)
        return Job(
            request.task_id,
            run=partial(self._generate, request),
            look=partial(self._newest, "progress", request.task_id, retries=0),
            # Who cancels does not want to wait for a server that is away; its jobs are gone anyway.
            cancel=partial(self._newest, "cancel", request.task_id, retries=0),
        )

    def progress(self, task_id: str, *, preview: bool = False) -> Progress:
        """How far a task is (its newest job, if several bear the id).

        ``preview`` asks the server for a small picture of the first unfinished image; it is in a later answer, after
        the next step. Raises ``NotFoundError`` for a task that the server does not know (any more).
        """
        return self._newest("progress", task_id, preview=preview)

    def cancel(self, task_id: str) -> Progress:
        """End all jobs of a task; a job that has ended stays as it is. Returns the newest as it was at that moment.

        Raises ``NotFoundError`` for a task that the server does not know (any more).
        """
        return self._newest("cancel", task_id)

    def jobs(self) -> list[Progress]:
        """All jobs that the server knows: those in flight and the last ones, the newest first."""
        return self._ask("list")

    def close(self) -> None:
        """Close the connections. Jobs in the background fail; on the server they go on."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _generate(self, request: Request, cancellation: Cancellation) -> Generation:
        def attempt(timeout: float | None) -> Mapping[str, Array]:
            try:
                return self._infer(request.model, request.tensors, cancellation, timeout)
            except UnreachableError:
                raise
            except (ConnectionFailedError, RequestTimeoutError, KeyboardInterrupt):
                # The server does not notice that nobody waits any more.
                with suppress(ClientError):
                    self._ask("cancel", request.task_id, retries=0)
                raise

        return Generation.from_tensors(
            self._attempts.run(attempt, sleep=cancellation.sleep, worth_it=self._worth_a_retry)
        )

    def _worth_a_retry(self, error: ClientError) -> bool:
        return self._met or not isinstance(error, UnreachableError)

    def _newest(self, action: str, task_id: str, *, preview: bool = False, retries: int | None = None) -> Progress:
        jobs = self._ask(action, task_id, preview=preview, retries=retries)
        if not jobs:
            raise NotFoundError(f"task_id: no job of {task_id!r} is known")
        return jobs[0]

    def _ask(
        self, action: str, task_id: str = "", *, preview: bool = False, retries: int | None = None
    ) -> list[Progress]:
        values: Mapping[str, Any] = {"action": action, "task_id": task_id, "preview": preview}
        tensors = encode(values, JOBS_INPUTS, batched=False)
        attempts = Attempts(_JOBS_TIMEOUT, self._attempts.retries if retries is None else retries)
        ask = partial(self._infer, _JOBS_MODEL, tensors, Cancellation())
        return Progress.list_from_tensors(attempts.run(ask, worth_it=self._worth_a_retry))

    def _infer(
        self, model: str, tensors: Mapping[str, Array], cancellation: Cancellation, timeout: float | None
    ) -> Mapping[str, Array]:
        if self._closed:
            raise ClientError("the client is closed")
        cancellation.check()
        call = self._transport.call(model, tensors, timeout)
        cancellation.attach(call)
        try:
            result = call.result()
        except ClientError as error:
            self._met = self._met or not isinstance(error, UnreachableError)
            raise
        self._met = True
        return result
