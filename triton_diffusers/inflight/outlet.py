"""What becomes of a decoded job: its pictures are compressed and stored, and it is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from triton_diffusers.inflight.finish import Finisher
from triton_diffusers.inflight.job import Job
from triton_diffusers.request import GenerationResult
from triton_diffusers.settings import Settings
from triton_diffusers.storage import Patience


class Outlet:
    """Finishes jobs in threads of its own that leave torch alone, so that no step waits for a compressor or a network.

    Each job has its own thread: one that waits for its store holds nobody up. ``finished`` is called with a job and
    its result, and says whether that came in time; ``failed`` with one whose result cannot be had, and why; ``waiting``
    with one that waits, and for what. Raises what ``open_store`` raises.
    """

    def __init__(
        self,
        settings: Settings,
        finished: Callable[[Job, GenerationResult], bool],
        failed: Callable[[Job, Exception], None],
        waiting: Callable[[Job, str], None],
    ) -> None:
        self._finisher = Finisher(settings)
        self._finished, self._failed, self._waiting = finished, failed, waiting
        self._store_seconds = settings.store_seconds
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(2 * settings.max_images_in_flight, thread_name_prefix="outlet")

    def begin(self, job: Job) -> None:
        """Finish a job whose images are all decoded."""
        self._threads.submit(self._finish, job)

    def stop(self) -> None:
        """Wait for no store any more; return when nothing is under way."""
        self._stopping.set()
        self._threads.shutdown()

    def _finish(self, job: Job) -> None:
        if job.state.ended:  # cancelled while others were finished
            return
        patience = Patience(
            seconds=self._store_seconds,
            is_wanted=lambda: not job.state.ended,
            is_stopping=self._stopping.is_set,
            report=lambda message: self._waiting(job, message),
        )
        try:
            self._finisher.finish(job, lambda result: self._finished(job, result), patience)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's alone
            self._failed(job, error)
