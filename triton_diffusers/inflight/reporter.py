"""Previews of jobs that run, for who asks for them on the board."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from triton_diffusers.engines import Engine
from triton_diffusers.images.encode import encode_preview, thumbnail, to_pixels
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.safety import blackens
from triton_diffusers.inflight.telemetry import Telemetry
from triton_diffusers.jobs.board import JobBoard

logger = logging.getLogger(__name__)


def show_previews(engine: Engine, jobs: Iterable[Job], reporter: Reporter) -> None:
    """Decode the first unfinished image of the jobs that somebody watches, as far as it has come."""
    wishes = reporter.preview_wishes()
    for job in jobs:
        sample = next((sample for sample in job.samples if not sample.decoded), None)
        if job.number not in wishes or sample is None or sample.expected is None:
            continue
        began = time.perf_counter()
        try:
            pixels = thumbnail(to_pixels(decode(engine, sample.expected, [])))
            # Flagged previews are withheld: the checker judges the thumbnail itself, since that is what is shown.
            if not (blackens(job) and engine.is_unsafe(pixels)):
                reporter.preview(job, encode_preview(pixels))
        except Exception:
            logger.exception("no preview of job %s", job.request.task_id)
        job.cost_seconds += time.perf_counter() - began


# How often a running job's progress is written.
_PROGRESS_SECONDS = 0.1
# How often ended jobs that are too old are swept from the board.
_SWEEP_SECONDS = 60.0


class Reporter:
    """Both are optional: without a board nothing is posted and nobody cancels."""

    def __init__(self, board: JobBoard | None, telemetry: Telemetry | None) -> None:
        self._board = board
        self._telemetry = telemetry
        self._swept = 0.0

    def changed(self, job: Job) -> None:
        """A job has come to another state, or to another image."""
        if self._board is not None:
            self._board.post(job.board_entry())
            job.posted = time.monotonic()

    def advanced(self, jobs: Iterable[Job], images: int, seconds: float) -> None:
        """One UNet call has advanced so many images of these jobs."""
        if self._telemetry is not None:
            self._telemetry.unet_called(images, seconds)
        now = time.monotonic()
        for job in jobs:
            if now - job.posted >= _PROGRESS_SECONDS:
                self.changed(job)

    def ended(self, job: Job) -> None:
        """A job was answered."""
        self.changed(job)
        if self._telemetry is not None:
            self._telemetry.request_ended(job.state.value, job.queue_seconds, job.run_seconds)
            if job.result is not None:
                self._telemetry.images_made(len(job.result.images))

    def in_flight(self, images: int, queued: int) -> None:
        """So many images are in flight now, and so many requests wait."""
        if self._telemetry is not None:
            self._telemetry.in_flight(images, queued)

    def cancellations(self) -> frozenset[int]:
        """Numbers of the jobs that somebody cancelled on the board."""
        if self._board is None:
            return frozenset()
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._board.forget_old()
        return frozenset(self._board.cancellations())

    def preview_wishes(self) -> frozenset[int]:
        """Numbers of the jobs whose preview somebody waits for."""
        return frozenset(self._board.preview_wishes()) if self._board is not None else frozenset()

    def preview(self, job: Job, picture: bytes) -> None:
        """Show a preview of a job."""
        if self._board is not None:
            self._board.post_preview(job.number, picture)
