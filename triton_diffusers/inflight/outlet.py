"""What becomes of a decoded job: its pictures are compressed and stored, and it is answered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from triton_diffusers.inflight.finish import Finisher
from triton_diffusers.inflight.job import Job
from triton_diffusers.request import GenerationResult
from triton_diffusers.settings import Settings

# Jobs whose results are compressed and stored at once.
_THREADS = 4


class Outlet:
    """Finishes jobs in threads of its own that leave torch alone, so that no step waits for a compressor or a network.

    ``finished`` is called with a job and its result, and says whether that came in time; ``failed`` with one whose
    result cannot be had, and why. Raises what ``open_store`` raises.
    """

    def __init__(
        self,
        settings: Settings,
        finished: Callable[[Job, GenerationResult], bool],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self._finisher = Finisher(settings)
        self._finished, self._failed = finished, failed
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="outlet")

    def begin(self, job: Job) -> None:
        """Finish a job whose images are all decoded."""
        self._threads.submit(self._finish, job)

    def stop(self) -> None:
        """Returns when nothing is under way any more."""
        self._threads.shutdown()

    def _finish(self, job: Job) -> None:
        if job.state.ended:  # cancelled while others were finished
            return
        try:
            self._finisher.finish(job, lambda result: self._finished(job, result))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
            self._failed(job, error)
