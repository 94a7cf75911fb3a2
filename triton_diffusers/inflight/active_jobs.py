"""Jobs of an engine loop that have not ended, and their states."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

from triton_diffusers.api.request import GenerationResult
from triton_diffusers.errors import EngineFailure, TritonDiffusersError
from triton_diffusers.inflight.controlnet_cache import ControlNetLease
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.reporter import Reporter

logger = logging.getLogger(__name__)


class ActiveJobs:
    """Waiting and running jobs, with the only code that changes their states.

    Any thread may report a job's progress here; it takes effect at once. ``changed`` guards both lists, and is
    notified on every change.
    """

    def __init__(self, reporter: Reporter, max_images: int) -> None:
        self._reporter = reporter
        self._max_images = max_images
        self.changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []

    def add(self, job: Job) -> None:
        """Add a waiting job."""
        with self.changed:
            # Reported before the loop sees it; otherwise its first report could follow its last.
            self._reporter.changed(job)
            self._waiting.append(job)
            self.changed.notify_all()

    def gathered(self, job: Job, lease: ControlNetLease) -> None:
        """Give a waiting job its ControlNets, the last of its inputs."""
        with self.changed:
            if job.state.ended:
                lease.release()
                return
            job.controlnets, job.gathered = lease, True
            self.changed.notify_all()

    def admitted(self, job: Job) -> None:
        """Move a waiting job to the running ones."""
        with self.changed:
            self._waiting.remove(job)
            self._running.append(job)
            job.state = JobState.RUNNING
        self._reporter.changed(job)
        self._report_in_flight()

    def waits_for_store(self, job: Job, message: str) -> None:
        """Show why a decoded job has not ended yet."""
        job.notice = message
        self._reporter.changed(job)

    def succeed(self, job: Job, result: GenerationResult) -> bool:
        """End a job with its result; return False if it has already ended."""
        return self._end(job, JobState.SUCCEEDED, result=result)

    def fail(self, job: Job, error: Exception) -> None:
        """End a job with an error, unless it has already ended."""
        if not isinstance(error, TritonDiffusersError):
            logger.error("job %s failed", job.request.task_id, exc_info=error)
            # Third-party messages may disclose server paths and internals.
            failure = EngineFailure(f"task {job.request.task_id} failed; the server's log says why")
            failure.__cause__ = error
            error = failure
        self._end(job, JobState.FAILED, error)

    def cancel(self, job: Job, reason: TritonDiffusersError) -> None:
        """End a job that is not wanted any more, unless it has already ended."""
        self._end(job, JobState.CANCELLED, reason)

    def wait(self, jobs: Iterable[Job], timeout: float) -> None:
        """Return when any of the jobs has ended, or after ``timeout`` seconds."""
        watched = tuple(jobs)
        with self.changed:
            self.changed.wait_for(lambda: any(job.state.ended for job in watched), timeout)

    def all(self) -> list[Job]:
        """Return all jobs."""
        with self.changed:
            return [*self._waiting, *self._running]

    def undecoded(self) -> list[Job]:
        """Return the running jobs that still need the engine; decoded ones belong to the finisher."""
        with self.changed:
            return [job for job in self._running if not job.decoded]

    def queued(self) -> int:
        """Return the number of waiting jobs, except those whose links are being fetched."""
        with self.changed:
            return sum(not job.fetching for job in self._waiting)

    def next_that_fits(self) -> Job | None:
        """Return the oldest waiting job with complete inputs if the limit of images in flight allows it."""
        with self.changed:
            # Counted separately, so that an unavailable store does not stop the engine at once.
            in_flight = _images(self.undecoded())
            decoded = _images(self._running) - in_flight
            first = next((job for job in self._waiting if job.gathered and not job.cancel_requested), None)
            fits = first is not None and in_flight + first.request.image_num <= self._max_images
            return first if fits and decoded < self._max_images else None

    def _end(
        self, job: Job, state: JobState, error: Exception | None = None, result: GenerationResult | None = None
    ) -> bool:
        """End a job; return False if it has already ended."""
        with self.changed:
            if job.state.ended:
                return False
            job.error, job.result = error, result
            job.ended = time.time()
            job.state = state
            if job in self._waiting:
                self._waiting.remove(job)
            if job in self._running:
                self._running.remove(job)
            job.release_resources()
            # Reported before waking anyone: after the reply, the board must not show a running job.
            self._reporter.ended(job)
            self.changed.notify_all()
        self._report_in_flight()
        if job.origin.on_end is not None:
            job.origin.on_end(job)
        return True

    def _report_in_flight(self) -> None:
        with self.changed:
            images, queued = _images(self.undecoded()), len(self._waiting)
        self._reporter.in_flight(images, queued)


def _images(jobs: Iterable[Job]) -> int:
    return sum(job.request.image_num for job in jobs)
