"""Requests to a Triton without a gateway, for asyncio: each waits in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from triton_diffusers_client.errors import RequestTimeoutError
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import AsyncJob, Job
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.request import Request
from triton_diffusers_client.triton.backend import TritonBackend
from triton_diffusers_client.triton.job import OwnTritonJob

T = TypeVar("T")


class AsyncTritonJob(AsyncJob):
    """See ``AsyncJob``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.id, self.task_id = job.id, job.task_id

    async def status(self, *, preview: bool = False) -> Progress:
        """See ``Job.status``."""
        return await in_thread(lambda: self.job.status(preview=preview))

    async def progress(self, *, previews: bool = False) -> AsyncIterator[Progress]:
        """See ``Job.progress``."""
        states = self.job.progress(previews=previews)
        while (now := await in_thread(lambda: next(states, None))) is not None:
            yield now

    async def wait(self, timeout: float | None = None) -> bool:
        """See ``Job.wait``."""
        if not isinstance(self.job, OwnTritonJob):
            return await in_thread(lambda: self.job.wait(timeout))
        outcome = asyncio.wrap_future(self.job.outcome)
        ended, _ = await asyncio.wait({outcome}, timeout=timeout)
        if ended:
            outcome.exception()  # asyncio logs exceptions that nobody has looked at
        else:
            outcome.cancel()
        return bool(ended)

    async def result(self, timeout: float | None = None) -> Generation:
        """See ``Job.result``."""
        if isinstance(self.job, OwnTritonJob) and not await self.wait(timeout):
            raise RequestTimeoutError(f"job {self.task_id} is not done after {timeout} s")
        return self.job.result(0)

    async def cancel(self) -> bool:
        """See ``Job.cancel``."""
        return await in_thread(self.job.cancel)

    async def delete(self) -> None:
        """See ``Job.delete``."""
        self.job.delete()


class AsyncTritonBackend:
    """See ``TritonBackend``, which it runs in threads."""

    def __init__(self, backend: TritonBackend) -> None:
        self._backend = backend

    async def generate(self, request: Request, timeout: float | None) -> Generation:
        """See ``Client.generate``."""
        (job,) = await self.submit([request], timeout)
        try:
            return await job.result()
        except asyncio.CancelledError:
            await job.cancel()
            raise

    async def submit(self, requests: Sequence[Request], timeout: float | None) -> list[AsyncJob]:
        """Send each request in a thread of its own."""
        return [AsyncTritonJob(job) for job in self._backend.submit(requests, timeout)]

    async def job(self, name: str) -> AsyncJob:
        """See ``Client.job``."""
        return AsyncTritonJob(await in_thread(lambda: self._backend.job(name)))

    async def as_completed(self, jobs: Sequence[AsyncJob], timeout: float | None) -> AsyncIterator[AsyncJob]:
        """See ``Client.as_completed``."""
        own = {job.job: job for job in jobs if isinstance(job, AsyncTritonJob)}
        ended = self._backend.as_completed(list(own), timeout)
        while (job := await in_thread(lambda: next(ended, None))) is not None:
            yield own[job]

    async def jobs(self, states: Sequence[JobState], task_id: str, limit: int, timeout: float | None) -> list[Progress]:
        """See ``Client.jobs``."""
        return await in_thread(lambda: self._backend.jobs(states, task_id, limit, timeout))

    async def progress(self, name: str, *, preview: bool, timeout: float | None) -> Progress:
        """See ``Client.progress``."""
        return await in_thread(lambda: self._backend.progress(name, preview=preview, timeout=timeout))

    async def cancel(self, name: str, *, timeout: float | None) -> Progress:
        """See ``Client.cancel``."""
        return await in_thread(lambda: self._backend.cancel(name, timeout=timeout))

    async def close(self) -> None:
        """See ``TritonBackend.close``."""
        await in_thread(self._backend.close)


async def in_thread(call: Callable[[], T]) -> T:
    """Return what a blocking call returns, from a thread of its own: the loop's pool has a few threads only."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # whose await is cancelled does not cancel the call

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  # raised by the caller's await
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)
