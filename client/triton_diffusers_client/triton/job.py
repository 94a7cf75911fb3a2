"""Jobs at a Triton: requests of this client in threads of their own, and jobs of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from triton_diffusers_client.errors import CancelledError, NotFoundError, NotSupportedError, RequestTimeoutError
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.job import Job
from triton_diffusers_client.progress import JobState, Progress
from triton_diffusers_client.triton.cancellation import Cancellation

_POLL_SECONDS = 0.25

Look = Callable[[bool], Progress]


class TritonJob(Job):
    """A job that somebody else has sent. Triton gives its result to its sender only."""

    def __init__(self, task_id: str, *, look: Look, cancel: Callable[[], bool]) -> None:
        """``look`` and ``cancel`` ask the server about the task.

        If it knows none, ``look`` raises ``NotFoundError`` and ``cancel`` returns False.
        """
        self.id = self.task_id = task_id
        self._look = look
        self._cancel = cancel

    def status(self, *, preview: bool = False) -> Progress:
        """See ``Job.status``."""
        return self._look(preview)

    def progress(self, *, previews: bool = False) -> Iterator[Progress]:
        """See ``Job.progress``."""
        last: Progress | None = None
        while last is None or not last.state.ended:
            if last is not None:
                self.wait(_POLL_SECONDS)
            now = self.status(preview=previews)
            if last is None or replace(now, elapsed_seconds=last.elapsed_seconds) != last:
                yield now
            last = now

    def wait(self, timeout: float | None = None) -> bool:
        """See ``Job.wait``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.status().state.ended:
            left = _POLL_SECONDS if deadline is None else min(_POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return False
            time.sleep(left)
        return True

    def result(self, timeout: float | None = None) -> Generation:
        """Raise ``NotSupportedError``."""
        raise NotSupportedError(f"job {self.id!r}: only the client that has sent it gets its images from a Triton")

    def cancel(self) -> bool:
        """See ``Job.cancel``."""
        return self._cancel()

    def delete(self) -> None:
        """Raise ``NotSupportedError``."""
        raise NotSupportedError(f"job {self.id!r}: a Triton keeps no jobs that could be deleted")


class OwnTritonJob(TritonJob):
    """A request of this client, which runs in a thread of its own."""

    def __init__(
        self,
        task_id: str,
        *,
        run: Callable[[Cancellation], Generation],
        look: Look,
        cancel: Callable[[Cancellation], bool],
    ) -> None:
        """``cancel`` ends the task here and there, and waits for a request that is on its way."""
        self._cancellation = Cancellation()
        super().__init__(task_id, look=look, cancel=partial(cancel, self._cancellation))
        self._run = run
        self.outcome: Future[Generation] = Future()
        self.outcome.set_running_or_notify_cancel()  # it is the thread's own: nobody else cancels it
        # A daemon: the end of the program does not wait for images.
        threading.Thread(target=self._work, name=f"generate-{task_id}", daemon=True).start()

    def status(self, *, preview: bool = False) -> Progress:
        """See ``Job.status``. A request that the server has not seen (yet) is shown as this client sees it."""
        ended = self._ended_state()
        try:
            seen = self._look(preview)
        except NotFoundError:
            seen = Progress(id=self.id, task_id=self.task_id, model="", state=JobState.QUEUED)
        return replace(seen, state=ended) if ended is not None and not seen.state.ended else seen

    def wait(self, timeout: float | None = None) -> bool:
        """See ``Job.wait``."""
        try:
            self.outcome.exception(timeout)
        except TimeoutError:
            return False
        return True

    def result(self, timeout: float | None = None) -> Generation:
        """See ``Job.result``."""
        if not self.wait(timeout):
            raise RequestTimeoutError(f"job {self.task_id} is not done after {timeout} s")
        return self.outcome.result()

    def _ended_state(self) -> JobState | None:
        if not self.outcome.done():
            return None
        error = self.outcome.exception()
        if error is None:
            return JobState.SUCCEEDED
        return JobState.CANCELLED if isinstance(error, CancelledError) else JobState.FAILED

    def _work(self) -> None:
        try:
            self.outcome.set_result(self._run(self._cancellation))
        except BaseException as error:  # noqa: BLE001  # raised by ``result``
            self.outcome.set_exception(error)
