"""The client."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from triton_diffusers_client.address import Interface
from triton_diffusers_client.attempts import checked_timeout
from triton_diffusers_client.backend import Backend
from triton_diffusers_client.connection import (
    DEFAULT_LIMIT,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    make_session,
    requests_of,
    states_of,
    triton_backend,
)
from triton_diffusers_client.errors import ClientError
from triton_diffusers_client.gateway.backend import GatewayBackend
from triton_diffusers_client.gateway.detection import detect, is_worth_a_look
from triton_diffusers_client.gateway.driver import Driver
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import Job
from triton_diffusers_client.options import Options
from triton_diffusers_client.progress import Progress
from triton_diffusers_client.protocols import wrong_protocol
from triton_diffusers_client.request import Request


class Client:
    """A connection to a gateway, or to a Triton; any number of threads may share one.

    ``url``: ``[http://]host[:8080]`` or ``https://…``, where the first call asks the server once what it is. To say it
    instead: ``gateway+http(s)://…``, or ``triton+http(s)://host[:8000]``, ``grpc://host[:8001]`` and ``grpcs://…`` for
    a Triton. None: ``$TRITON_DIFFUSERS_URL``, else a gateway on this machine.
    ``model``: the model that draws, unless a call names another; None: ``ensemble``, which translates Chinese prompts,
    or ``sd_base`` where the server has no ensemble.
    ``timeout``: seconds that one request may take, retries included; None: any time. The server knows of it too.
    ``retries``: how often a request is sent again after an error that may pass; 0: never.
    ``api_key``: sent with every call, as ``authorization: Bearer …``; None: ``$TRITON_DIFFUSERS_API_KEY``.
    ``headers``: others to send (gRPC: metadata).

    Raises ``ValueError`` for an invalid argument; a server that cannot be reached is noticed by the first call, which
    raises ``UnreachableError`` at once.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._session = make_session(url, timeout, retries, api_key, headers)
        self._model = model
        self._lock = threading.Lock()
        self._backend: Backend | None = None
        self._interface = self._session.address.interface
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.address.url!r})"

    @property
    def interface(self) -> Interface:
        """The interface of the server, which is asked for it if the URL does not say it. Raises a ``ClientError``."""
        self._connected()
        assert self._interface is not None  # noqa: S101
        return self._interface

    def generate(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Draw, and wait for the images.

        ``model`` and ``timeout`` (seconds) replace the client's for this call. Raises a ``ClientError``; ``TypeError``
        for an option that does not exist. If the time is over, on Ctrl-C and on any other exception that ends the
        waiting, the job is cancelled on the server too.
        """
        request = Request.build(model or self._model, prompt, options)
        checked_timeout(timeout)
        return self._connected().generate(request, timeout)

    def submit(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> Job:
        """Draw in the background; raise for invalid options.

        ``timeout`` (seconds) is the job's own: the server ends it then. Without one, a gateway's job has no limit, also
        if this program ends; a Triton's has the client's, and ends with this program.
        """
        request = Request.build(model or self._model, prompt, options)
        checked_timeout(timeout)
        return self._connected().submit([request], timeout)[0]

    def submit_many(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        model: str | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Job]:
        """Draw several requests in the background: prompts, or mappings with a ``prompt`` and options of their own.

        ``options`` are those of all. A gateway accepts all of them or none.
        """
        requests = requests_of(prompts, model or self._model, options)
        checked_timeout(timeout)
        return self._connected().submit(requests, timeout)

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
        """Yield jobs of this client as they end. Raises ``RequestTimeoutError`` if some have not after ``timeout``."""
        checked_timeout(timeout)
        return self._connected().as_completed(list(jobs), timeout)

    def job(self, name: str) -> Job:
        """Return the job with an id, or the newest one with a label (``task_id``). Raises ``NotFoundError``.

        From a Triton, only the client that has sent a job gets its result.
        """
        return self._connected().job(name)

    def jobs(
        self,
        *,
        states: str | Sequence[str] = (),
        task_id: str = "",
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
    ) -> list[Progress]:
        """Return the newest jobs that the server knows: those in one of the states, and with this label."""
        wanted = states_of(states)
        checked_timeout(timeout)
        return self._connected().jobs(wanted, task_id, limit, timeout)

    def progress(self, name: str, *, preview: bool = False, timeout: float | None = None) -> Progress:
        """Return the progress of a job, by its id, or of the newest one with a label.

        ``preview`` asks the server for a small image of the first unfinished image; it is in a later answer, after
        the next step. Raises ``NotFoundError`` for a job that the server does not know (any more).
        """
        checked_timeout(timeout)
        return self._connected().progress(name, preview=preview, timeout=timeout)

    def cancel(self, name: str, *, timeout: float | None = None) -> Progress:
        """Cancel a job, by its id or label (at a Triton: all in flight with it); return the job as it was before.

        Raises ``NotFoundError`` for a job that the server does not know (any more).
        """
        checked_timeout(timeout)
        return self._connected().cancel(name, timeout=timeout)

    def close(self) -> None:
        """Close the connections. A Triton's unfinished jobs are cancelled; a gateway's continue."""
        with self._lock:
            self._closed = True
            backend = self._backend
        if backend is not None:
            backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> Backend:
        with self._lock:
            if self._closed:
                raise ClientError("the client is closed")
            if self._backend is None:
                self._backend = self._connect()
            return self._backend

    def _connect(self) -> Backend:
        session = self._session
        driver = Driver(session.address.netloc)
        try:
            if self._interface is None:
                self._interface = driver.run(detect(session))
        except ClientError as error:
            driver.close()
            wrong = wrong_protocol(session.address) if is_worth_a_look(error, session.address) else None
            raise wrong or error from error
        if self._interface is Interface.GATEWAY:
            return GatewayBackend(driver, session)
        driver.close()
        return triton_backend(session)
