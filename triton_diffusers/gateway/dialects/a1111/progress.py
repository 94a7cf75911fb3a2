"""Progress of a caller's jobs, in the web UI's words."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Sequence
from typing import Any, Final

from triton_diffusers.gateway.access.caller import A1111
from triton_diffusers.gateway.jobs.job import Blob, Job, JobState
from triton_diffusers.gateway.jobs.table import JobTable

TASK: Final = "task"
"""Tag of a job with the id that its caller has chosen (``force_task_id``)."""

_MAX_JOBS = 200
_IDLE_STATE = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


async def jobs_in_flight(table: JobTable, owner: str) -> Sequence[Job]:
    """Return the caller's jobs of this API that have not ended: those that run first, then the oldest."""
    found: list[Job] = []
    for state in (JobState.RUNNING, JobState.QUEUED):
        page = await table.jobs(owner, (state,), None, None, _MAX_JOBS)
        found += [job for job in reversed(page.jobs) if job.dialect == A1111 and not job.cancel_requested]
    return found


async def job_of_task(table: JobTable, owner: str, task: str) -> Job | None:
    """Return the caller's latest job with an id of its own choice."""
    page = await table.jobs(owner, (), None, None, _MAX_JOBS)
    return next((job for job in page.jobs if job.tags.get(TASK) == task), None)


async def preview_of(table: JobTable, job: Job) -> Blob | None:
    """Return the latest preview of a running job, and ask for the next one."""
    if job.state is not JobState.RUNNING:
        return None
    await table.want_preview(job.owner, job.id)
    return await table.preview(job.owner, job.id)


def progress_view(jobs: Sequence[Job], preview: Blob | None) -> dict[str, Any]:
    """Return the progress of the first one of the jobs in flight."""
    if not jobs:
        view: dict[str, Any] = {"progress": 0.0, "eta_relative": 0.0, "state": dict(_IDLE_STATE)}
        return {**view, "current_image": None, "textinfo": None}
    job = jobs[0]
    return {
        "progress": job.progress.fraction,
        "eta_relative": remaining_seconds(job),
        "state": {
            **_IDLE_STATE,
            "job": job.id,
            "job_count": len(jobs),
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created)),
            "sampling_step": job.progress.step,
            "sampling_steps": job.progress.steps,
        },
        "current_image": base64.b64encode(preview.data).decode() if preview else None,
        "textinfo": _text(job, jobs),
    }


def task_view(job: Job | None, jobs: Sequence[Job], preview: Blob | None, last_preview: int) -> dict[str, Any]:
    """Return the progress of one task; ``last_preview`` is the id of a preview that the caller has already."""
    if job is None:
        return {"active": False, "queued": False, "completed": False, "textinfo": "Waiting..."}
    number = zlib.crc32(preview.data) if preview else -1
    is_new = preview is not None and number != last_preview
    return {
        "active": job.state is JobState.RUNNING,
        "queued": job.state is JobState.QUEUED,
        "completed": job.state.has_ended,
        "progress": job.progress.fraction,
        "eta": remaining_seconds(job),
        "live_preview": _data_url(preview) if preview and is_new else None,
        "id_live_preview": number if preview else last_preview,
        "textinfo": _text(job, jobs),
    }


def remaining_seconds(job: Job) -> float:
    """Return an estimate of what a running job still takes; 0 if there is none."""
    fraction = job.progress.fraction
    if job.started is None or fraction <= 0:
        return 0.0
    return max(0.0, (time.time() - job.started) * (1 - fraction) / fraction)


def _text(job: Job, jobs: Sequence[Job]) -> str | None:
    if job.state is not JobState.QUEUED:
        return None
    place = next((number for number, each in enumerate(jobs, 1) if each.id == job.id), len(jobs))
    return f"In queue: {place}/{len(jobs)}"


def _data_url(preview: Blob) -> str:
    return f"data:{preview.media_type};base64,{base64.b64encode(preview.data).decode()}"
