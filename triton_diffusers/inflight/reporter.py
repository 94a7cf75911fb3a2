"""Progress, metrics and previews of jobs."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from triton_diffusers.engines import Engine
from triton_diffusers.images.encode import encode_preview, thumbnail, to_pixels
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.safety import blackens
from triton_diffusers.inflight.telemetry import Telemetry
from triton_diffusers.jobs.board import JobBoard

logger = logging.getLogger(__name__)


def show_previews(engine: Engine, jobs: Iterable[Job], reporter: Reporter) -> None:
    """Post previews of watched jobs: the first unfinished image at its current state."""
    wishes = reporter.preview_wishes()
    for job in jobs:
        sample = next((sample for sample in job.samples if not sample.decoded), None)
        if job.origin.job_id not in wishes or sample is None or sample.expected is None:
            continue
        began = time.perf_counter()
        try:
            pixels = thumbnail(to_pixels(decode(engine, sample.expected, [])))
            # Flagged previews are withheld. The checker judges the thumbnail, since only that is shown.
            if not (blackens(job) and engine.is_unsafe(pixels)):
                reporter.preview(job, encode_preview(pixels))
        except Exception:
            logger.exception("the preview of job %s failed", job.request.task_id)
        job.cost_seconds += time.perf_counter() - began


_PROGRESS_INTERVAL_SECONDS = 0.1
_SWEEP_INTERVAL_SECONDS = 60.0


class Reporter:
    """Writer of job states to the board and of counts to telemetry, both optional."""

    def __init__(self, board: JobBoard | None, telemetry: Telemetry | None) -> None:
        self._board = board
        self._telemetry = telemetry
        self._swept = 0.0

    def changed(self, job: Job) -> None:
        """Post a job's new state."""
        if self._board is not None:
            self._board.post(job.board_entry())
            job.posted = time.monotonic()

    def advanced(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count a UNet call, and post the progress of its jobs at intervals; ``jobs`` has one entry for each image."""
        if self._telemetry is not None:
            self._telemetry.unet_called(len(jobs), seconds)
            for model, steps in Counter(job.model for job in jobs).items():
                self._telemetry.steps_made(model, steps)
        now = time.monotonic()
        for job in set(jobs):
            if now - job.posted >= _PROGRESS_INTERVAL_SECONDS:
                self.changed(job)

    def ended(self, job: Job) -> None:
        """Post and count an ended job."""
        self.changed(job)
        if self._telemetry is not None:
            self._telemetry.request_ended(job.model, job.state.value, job.queue_seconds, job.run_seconds)
            if job.result is not None:
                self._telemetry.images_made(job.model, len(job.result.images))

    def in_flight(self, images: int, queued: int) -> None:
        """Set the current numbers of images in flight and of queued requests."""
        if self._telemetry is not None:
            self._telemetry.in_flight(images, queued)

    def cancellations(self) -> frozenset[str]:
        """Return the ids of jobs cancelled on the board."""
        if self._board is None:
            return frozenset()
        if time.monotonic() - self._swept > _SWEEP_INTERVAL_SECONDS:
            self._swept = time.monotonic()
            self._board.forget_old()
        return frozenset(self._board.cancellations())

    def preview_wishes(self) -> frozenset[str]:
        """Return the ids of jobs with a requested preview."""
        return frozenset(self._board.preview_wishes()) if self._board is not None else frozenset()

    def preview(self, job: Job, image: bytes) -> None:
        """Post a preview of a job."""
        if self._board is not None:
            self._board.post_preview(job.origin.job_id, image)
