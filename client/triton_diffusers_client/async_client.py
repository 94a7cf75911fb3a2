"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from triton_diffusers_client.address import Interface
from triton_diffusers_client.attempts import checked_timeout
from triton_diffusers_client.backend import AsyncBackend
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
from triton_diffusers_client.gateway.async_driver import AsyncDriver
from triton_diffusers_client.gateway.backend import AsyncGatewayBackend
from triton_diffusers_client.gateway.detection import detect, is_worth_a_look
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import AsyncJob
from triton_diffusers_client.options import Options
from triton_diffusers_client.progress import Progress
from triton_diffusers_client.protocols import wrong_protocol
from triton_diffusers_client.request import Request


class AsyncClient:
    """A connection to a gateway, or to a Triton, for the coroutines of one event loop of asyncio.

    Arguments and methods are those of ``Client``. A gateway's calls are asynchronous to the socket; each call of a
    Triton waits in a thread of its own.
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
        self._lock = asyncio.Lock()
        self._backend: AsyncBackend | None = None
        self._interface = self._session.address.interface
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.address.url!r})"

    async def interface(self) -> Interface:
        """Return the interface of the server, which is asked for it if the URL does not say it."""
        await self._connected()
        assert self._interface is not None  # noqa: S101
        return self._interface

    async def generate(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Draw, and wait for the images; see ``Client.generate``. A cancelled task cancels the job too."""
        request = Request.build(model or self._model, prompt, options)
        checked_timeout(timeout)
        return await (await self._connected()).generate(request, timeout)

    async def submit(
        self, prompt: str, *, model: str | None = None, timeout: float | None = None, **options: Unpack[Options]
    ) -> AsyncJob:
        """Draw in the background; see ``Client.submit``."""
        request = Request.build(model or self._model, prompt, options)
        checked_timeout(timeout)
        return (await (await self._connected()).submit([request], timeout))[0]

    async def submit_many(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        model: str | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[AsyncJob]:
        """Draw several requests in the background; see ``Client.submit_many``."""
        requests = requests_of(prompts, model or self._model, options)
        checked_timeout(timeout)
        return await (await self._connected()).submit(requests, timeout)

    async def as_completed(self, jobs: Iterable[AsyncJob], timeout: float | None = None) -> AsyncIterator[AsyncJob]:
        """Yield jobs of this client as they end; see ``Client.as_completed``."""
        checked_timeout(timeout)
        async for job in (await self._connected()).as_completed(list(jobs), timeout):
            yield job

    async def job(self, name: str) -> AsyncJob:
        """Return the job with an id, or the newest one with a label; see ``Client.job``."""
        return await (await self._connected()).job(name)

    async def jobs(
        self,
        *,
        states: str | Sequence[str] = (),
        task_id: str = "",
        limit: int = DEFAULT_LIMIT,
        timeout: float | None = None,
    ) -> list[Progress]:
        """Return the newest jobs that the server knows; see ``Client.jobs``."""
        wanted = states_of(states)
        checked_timeout(timeout)
        return await (await self._connected()).jobs(wanted, task_id, limit, timeout)

    async def progress(self, name: str, *, preview: bool = False, timeout: float | None = None) -> Progress:
        """Return the progress of a job; see ``Client.progress``."""
        checked_timeout(timeout)
        return await (await self._connected()).progress(name, preview=preview, timeout=timeout)

    async def cancel(self, name: str, *, timeout: float | None = None) -> Progress:
        """Cancel a job; see ``Client.cancel``."""
        checked_timeout(timeout)
        return await (await self._connected()).cancel(name, timeout=timeout)

    async def close(self) -> None:
        """Close the connections; see ``Client.close``."""
        async with self._lock:
            self._closed = True
            backend = self._backend
        if backend is not None:
            await backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _connected(self) -> AsyncBackend:
        async with self._lock:
            if self._closed:
                raise ClientError("the client is closed")
            if self._backend is None:
                self._backend = await self._connect()
            return self._backend

    async def _connect(self) -> AsyncBackend:
        session = self._session
        driver = AsyncDriver(session.address.netloc)
        try:
            if self._interface is None:
                self._interface = await driver.run(detect(session))
        except ClientError as error:
            await driver.close()
            looked = is_worth_a_look(error, session.address)
            wrong = await asyncio.to_thread(wrong_protocol, session.address) if looked else None
            raise wrong or error from error
        if self._interface is Interface.GATEWAY:
            return AsyncGatewayBackend(driver, session)
        await driver.close()
        backend = triton_backend(session)
        from triton_diffusers_client.triton.async_backend import AsyncTritonBackend  # needs tritonclient

        return AsyncTritonBackend(backend)
