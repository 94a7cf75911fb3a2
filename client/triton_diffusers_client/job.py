"""A request in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from triton_diffusers_client.cancellation import Cancellation
from triton_diffusers_client.errors import NotFoundError, RequestTimeoutError
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.progress import Progress


class Job:
    """A handle on a request that runs in a thread of its own; made by ``Client.submit``."""

    def __init__(
        self,
        task_id: str,
        *,
        run: Callable[[Cancellation], Generation],
        look: Callable[[], Progress],
        cancel: Callable[[Cancellation], bool],
    ) -> None:
        """``look`` asks the server about the task, ``cancel`` ends it here and there.

        If the server knows none, ``look`` raises ``NotFoundError`` and ``cancel`` returns False.
        """
        self.task_id = task_id
        self._run = run
        self._look = look
        self._cancel = cancel
        self._cancellation = Cancellation()
        self._outcome: Future[Generation] = Future()
        # A daemon: the end of the program does not wait for images.
        threading.Thread(target=self._work, name=f"generate-{task_id}", daemon=True).start()

    def done(self) -> bool:
        """Return True if there is a result or an error."""
        return self._outcome.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; return True if the job has ended."""
        try:
            self._outcome.exception(timeout)
        except TimeoutError:
            return False
        return True

    def result(self, timeout: float | None = None) -> Generation:
        """Return or raise as ``Client.generate`` does.

        Raises ``RequestTimeoutError`` if that does not exist after ``timeout`` seconds; the job continues.
        """
        if not self.wait(timeout):
            raise RequestTimeoutError(f"job {self.task_id} is not done after {timeout} s")
        return self._outcome.result()

    def progress(self) -> Progress | None:
        """Return the job's progress, None while the server has not seen it. Raises a ``ClientError``; never retries."""
        try:
            return self._look()
        except NotFoundError:
            return None

    def cancel(self) -> bool:
        """Cancel the job, here and on the server; ``result`` raises ``CancelledError`` unless it was done before.

        Waits for a request that is on its way to the server. Returns True if the server knew the job. Raises a
        ``ClientError`` if the server cannot be reached.
        """
        return self._cancel(self._cancellation)

    def _work(self) -> None:
        try:
            self._outcome.set_result(self._run(self._cancellation))
        except BaseException as error:  # noqa: BLE001  # raised by ``result``
            self._outcome.set_exception(error)
