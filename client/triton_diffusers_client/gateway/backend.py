"""Requests to a gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence

from triton_diffusers_client.attempts import checked_timeout
from triton_diffusers_client.gateway.async_driver import AsyncDriver
from triton_diffusers_client.gateway.driver import Driver
from triton_diffusers_client.gateway.effects import Flow
from triton_diffusers_client.gateway.following import Completion
from triton_diffusers_client.gateway.job import AsyncGatewayJob, GatewayJob
from triton_diffusers_client.gateway.session import Session, new_key
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import AsyncJob, Job
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.request import Request


class GatewayBackend:
    """See ``backend.Backend``. Jobs are the gateway's: they continue when it is closed."""

    def __init__(self, driver: Driver, session: Session) -> None:
        self._driver = driver
        self._session = session

    def generate(self, request: Request, timeout: float | None) -> Generation:
        """See ``Client.generate``."""
        seconds = self._session.attempts.within(timeout).timeout
        return self._driver.run(self._session.generate(request, seconds))

    def submit(self, requests: Sequence[Request], timeout: float | None) -> list[Job]:
        """Create a job for each request, all or none."""
        views = self._driver.run(
            self._session.submit(requests, checked_timeout(timeout), new_key(), _deadline(self._session), None)
        )
        return [GatewayJob(self._driver, self._session, view) for view in views]

    def job(self, name: str) -> Job:
        """See ``Client.job``."""
        return GatewayJob(self._driver, self._session, self._driver.run(self._session.find(name)))

    def as_completed(self, jobs: Sequence[Job], timeout: float | None) -> Iterator[Job]:
        """See ``Client.as_completed``."""
        by_id = {job.id: job for job in jobs if isinstance(job, GatewayJob)}
        completion = Completion(self._session, by_id, timeout)
        while (found := self._driver.run(completion.next())) is not None:
            job_id, view = found
            if view is not None:
                by_id[job_id].flows.note(view)
            yield by_id[job_id]

    def jobs(self, states: Sequence[JobState], task_id: str, limit: int, timeout: float | None) -> list[Progress]:
        """See ``Client.jobs``."""
        flow = self._session.jobs(states, task_id, limit, _deadline(self._session, timeout))
        return [view.progress() for view in self._driver.run(flow)]

    def progress(self, name: str, *, preview: bool, timeout: float | None) -> Progress:
        """See ``Client.progress``."""
        return self._driver.run(_status(self._session, name, preview=preview, timeout=timeout))

    def cancel(self, name: str, *, timeout: float | None) -> Progress:
        """See ``Client.cancel``."""
        return self._driver.run(_cancel(self._session, name, timeout))

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()


class AsyncGatewayBackend:
    """See ``GatewayBackend``."""

    def __init__(self, driver: AsyncDriver, session: Session) -> None:
        self._driver = driver
        self._session = session

    async def generate(self, request: Request, timeout: float | None) -> Generation:
        """See ``Client.generate``."""
        seconds = self._session.attempts.within(timeout).timeout
        return await self._driver.run(self._session.generate(request, seconds))

    async def submit(self, requests: Sequence[Request], timeout: float | None) -> list[AsyncJob]:
        """Create a job for each request, all or none."""
        flow = self._session.submit(requests, checked_timeout(timeout), new_key(), _deadline(self._session), None)
        return [AsyncGatewayJob(self._driver, self._session, view) for view in await self._driver.run(flow)]

    async def job(self, name: str) -> AsyncJob:
        """See ``Client.job``."""
        return AsyncGatewayJob(self._driver, self._session, await self._driver.run(self._session.find(name)))

    async def as_completed(self, jobs: Sequence[AsyncJob], timeout: float | None) -> AsyncIterator[AsyncJob]:
        """See ``Client.as_completed``."""
        by_id = {job.id: job for job in jobs if isinstance(job, AsyncGatewayJob)}
        completion = Completion(self._session, by_id, timeout)
        while (found := await self._driver.run(completion.next())) is not None:
            job_id, view = found
            if view is not None:
                by_id[job_id].flows.note(view)
            yield by_id[job_id]

    async def jobs(self, states: Sequence[JobState], task_id: str, limit: int, timeout: float | None) -> list[Progress]:
        """See ``Client.jobs``."""
        flow = self._session.jobs(states, task_id, limit, _deadline(self._session, timeout))
        return [view.progress() for view in await self._driver.run(flow)]

    async def progress(self, name: str, *, preview: bool, timeout: float | None) -> Progress:
        """See ``Client.progress``."""
        return await self._driver.run(_status(self._session, name, preview=preview, timeout=timeout))

    async def cancel(self, name: str, *, timeout: float | None) -> Progress:
        """See ``Client.cancel``."""
        return await self._driver.run(_cancel(self._session, name, timeout))

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()


def _status(session: Session, name: str, *, preview: bool, timeout: float | None) -> Flow[Progress]:
    view = yield from session.find(name, _deadline(session, timeout))
    return (yield from session.status(view, preview=preview))


def _cancel(session: Session, name: str, timeout: float | None) -> Flow[Progress]:
    deadline = _deadline(session, timeout)
    view = yield from session.find(name, deadline)
    if not view.state.ended:
        yield from session.cancel(view.id, deadline)
    return view.progress()


def _deadline(session: Session, timeout: float | None = None) -> float | None:
    seconds = session.attempts.within(timeout).timeout
    return None if seconds is None else time.monotonic() + seconds
