"""Previews of jobs that run, for who asks for them on the board."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from triton_diffusers.engines import Engine
from triton_diffusers.images import encode_preview, thumbnail, to_pixels
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.reporter import Reporter
from triton_diffusers.inflight.safety import blackens

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
