"""Jobs at a gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

from triton_diffusers_client.errors import NotFoundError, RequestTimeoutError
from triton_diffusers_client.gateway.async_driver import AsyncDriver
from triton_diffusers_client.gateway.documents import JobView
from triton_diffusers_client.gateway.driver import Driver
from triton_diffusers_client.gateway.effects import Flow
from triton_diffusers_client.gateway.following import Following
from triton_diffusers_client.gateway.session import Session
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import AsyncJob, Job
from triton_diffusers_client.progress import Progress


class JobFlows:
    """The flows of one job. It remembers how the job has ended, and its result."""

    def __init__(self, session: Session, view: JobView) -> None:
        self.session = session
        self.id = view.id
        self.task_id = str(view.document.get("task_id", ""))
        self._view = view
        self._result: Generation | None = None

    def note(self, view: JobView) -> None:
        """Remember a newer view."""
        self._view = view

    def wait(self, timeout: float | None) -> Flow[bool]:
        """Return True if the job has ended, after at most ``timeout`` seconds."""
        if not self._view.state.ended:
            deadline = None if timeout is None else time.monotonic() + timeout
            self._view = yield from self.session.wait(self.id, deadline)
        return self._view.state.ended

    def result(self, timeout: float | None) -> Flow[Generation]:
        """Return the result."""
        if self._result is None:
            if not (yield from self.wait(timeout)):
                raise RequestTimeoutError(f"job {self.id} is not done after {timeout:g} s")
            self._result = yield from self.session.result(self._view)
        return self._result

    def cancel(self) -> Flow[bool]:
        """Cancel the job; return True if the gateway knows it."""
        try:
            self._view = yield from self.session.cancel(self.id)
        except NotFoundError:
            return False
        return True

    def status(self, *, preview: bool) -> Flow[Progress]:
        """Return the job's progress."""
        view = yield from self.session.view(self.id)
        return (yield from self.session.status(view, preview=preview))


class GatewayJob(Job):
    """See ``Job``."""

    def __init__(self, driver: Driver, session: Session, view: JobView) -> None:
        self._driver = driver
        self.flows = JobFlows(session, view)
        self.id, self.task_id = self.flows.id, self.flows.task_id

    def status(self, *, preview: bool = False) -> Progress:
        """See ``Job.status``."""
        return self._driver.run(self.flows.status(preview=preview))

    def progress(self, *, previews: bool = False) -> Iterator[Progress]:
        """See ``Job.progress``."""
        following = Following(self.flows.session, self.id, previews=previews)
        try:
            while (now := self._driver.run(following.next())) is not None:
                yield now
        finally:
            self._driver.run(following.close())

    def wait(self, timeout: float | None = None) -> bool:
        """See ``Job.wait``."""
        return self._driver.run(self.flows.wait(timeout))

    def result(self, timeout: float | None = None) -> Generation:
        """See ``Job.result``."""
        return self._driver.run(self.flows.result(timeout))

    def cancel(self) -> bool:
        """See ``Job.cancel``."""
        return self._driver.run(self.flows.cancel())

    def delete(self) -> None:
        """See ``Job.delete``."""
        self._driver.run(self.flows.session.delete(self.id))


class AsyncGatewayJob(AsyncJob):
    """See ``AsyncJob``."""

    def __init__(self, driver: AsyncDriver, session: Session, view: JobView) -> None:
        self._driver = driver
        self.flows = JobFlows(session, view)
        self.id, self.task_id = self.flows.id, self.flows.task_id

    async def status(self, *, preview: bool = False) -> Progress:
        """See ``Job.status``."""
        return await self._driver.run(self.flows.status(preview=preview))

    async def progress(self, *, previews: bool = False) -> AsyncIterator[Progress]:
        """See ``Job.progress``."""
        following = Following(self.flows.session, self.id, previews=previews)
        try:
            while (now := await self._driver.run(following.next())) is not None:
                yield now
        finally:
            await self._driver.run(following.close())

    async def wait(self, timeout: float | None = None) -> bool:
        """See ``Job.wait``."""
        return await self._driver.run(self.flows.wait(timeout))

    async def result(self, timeout: float | None = None) -> Generation:
        """See ``Job.result``."""
        return await self._driver.run(self.flows.result(timeout))

    async def cancel(self) -> bool:
        """See ``Job.cancel``."""
        return await self._driver.run(self.flows.cancel())

    async def delete(self) -> None:
        """See ``Job.delete``."""
        await self._driver.run(self.flows.session.delete(self.id))
