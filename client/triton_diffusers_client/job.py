"""Handles on jobs, the same for every kind of server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator

from triton_diffusers_client.display.watcher import show
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.progress import Progress


class Job(ABC):
    """A job of a server; made by ``Client.submit``, ``submit_many`` and ``job``.

    ``id`` is the server's name of the job, ``task_id`` the caller's label; without a gateway they are the same.
    """

    id: str
    task_id: str

    def __repr__(self) -> str:
        label = "" if self.task_id == self.id else f", task_id={self.task_id!r}"
        return f"{type(self).__name__}({self.id!r}{label})"

    @abstractmethod
    def status(self, *, preview: bool = False) -> Progress:
        """Return the job as it is now; ``preview`` asks for a small image of the first unfinished image.

        The image is made after the next step, so it is in a later answer. Raises a ``ClientError``.
        """

    @abstractmethod
    def progress(self, *, previews: bool = False) -> Iterator[Progress]:
        """Yield the job as it is, and again after each change, until it has ended. Raises a ``ClientError``.

        A gateway's job is followed by its event stream, which is resumed when the connection breaks.
        """

    @abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; return True if the job has ended."""

    @abstractmethod
    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the end, and return the images or raise the job's error, as ``Client.generate`` does.

        Raises ``RequestTimeoutError`` if the job has not ended after ``timeout`` seconds; it continues.
        """

    @abstractmethod
    def cancel(self) -> bool:
        """Cancel the job; ``result`` raises ``CancelledError`` unless it had ended before.

        Returns True if the server knows the job. Raises a ``ClientError`` if the server cannot be reached.
        """

    @abstractmethod
    def delete(self) -> None:
        """Delete an ended job and its images. Raises ``NotSupportedError`` without a gateway."""

    def done(self) -> bool:
        """Return True if the job has ended."""
        return self.wait(0)

    def watch(self) -> Generation:
        """Show the job's progress until it ends, in a notebook or on a terminal; return or raise as ``result`` does."""
        with show() as display:
            for progress in self.progress(previews=display.wants_previews):
                display.update(progress)
        return self.result()


class AsyncJob(ABC):
    """A job of a server, as ``Job`` is; made by ``AsyncClient``."""

    id: str
    task_id: str

    def __repr__(self) -> str:
        label = "" if self.task_id == self.id else f", task_id={self.task_id!r}"
        return f"{type(self).__name__}({self.id!r}{label})"

    @abstractmethod
    async def status(self, *, preview: bool = False) -> Progress:
        """Return the job as it is now; see ``Job.status``."""

    @abstractmethod
    def progress(self, *, previews: bool = False) -> AsyncIterator[Progress]:
        """Yield the job as it is, and again after each change, until it has ended; see ``Job.progress``."""

    @abstractmethod
    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; return True if the job has ended."""

    @abstractmethod
    async def result(self, timeout: float | None = None) -> Generation:
        """Wait for the end, and return the images or raise the job's error; see ``Job.result``."""

    @abstractmethod
    async def cancel(self) -> bool:
        """Cancel the job; return True if the server knows it."""

    @abstractmethod
    async def delete(self) -> None:
        """Delete an ended job and its images. Raises ``NotSupportedError`` without a gateway."""

    async def done(self) -> bool:
        """Return True if the job has ended."""
        return await self.wait(0)

    async def watch(self) -> Generation:
        """Show the job's progress until it ends, in a notebook or on a terminal; return or raise as ``result`` does."""
        with show() as display:
            async for progress in self.progress(previews=display.wants_previews):
                display.update(progress)
        return await self.result()
