"""Commands of owners on their jobs."""

from __future__ import annotations

from triton_diffusers.gateway.jobs import bounds, fair_queue, housekeeping, lifecycle, outbox_log, sink_log
from triton_diffusers.gateway.jobs.bounds import Charge
from triton_diffusers.gateway.jobs.database import Session
from triton_diffusers.gateway.jobs.errors import NotDead, StillInFlight
from triton_diffusers.gateway.jobs.job import Job, JobState
from triton_diffusers.gateway.jobs.rows import lock_job, select_job
from triton_diffusers.gateway.jobs.uptime import uptime

_PREVIEW_SECONDS = 10.0

_RERUN = """UPDATE jobs SET state = 'queued', event = event + 1, attempts = 0, runner = '', started = NULL,
    ended = NULL, ended_uptime = NULL, has_results = 0, step = 0, steps = 0, images_done = 0 WHERE number = :number"""


def cancel(session: Session, owner: str | None, job_id: str) -> Job:
    """Cancel a job in flight. Raises: JobNotFound."""
    lifecycle.cancel(session, lock_job(session, owner, job_id))
    return select_job(session, owner, job_id)


def leave(session: Session, job_id: str, grace_seconds: float) -> None:
    """Count a caller less; the last one abandons the job."""
    session.execute(
        "UPDATE jobs SET callers = callers - 1, abandoned_at = CASE WHEN callers = 1 THEN :at ELSE abandoned_at END"
        " WHERE id = :id AND callers > 0 AND cancel_requested = 0 AND ended_uptime IS NULL",
        id=job_id,
        at=uptime(session) + grace_seconds,
    )


def rerun(session: Session, owner: str | None, job_id: str) -> Job:
    """Queue a dead job again. Raises: JobNotFound, NotDead, BoundReached."""
    job = lock_job(session, owner, job_id)
    if job["state"] != JobState.DEAD:
        raise NotDead(job_id)
    bounded = bounds.lock(session, bounds.subjects_of(job["owner"], job["team"], job["key_id"]))
    session.execute(_RERUN, number=job["number"])
    bounds.charge(session, bounded, job["owner"], [Charge(job["work"], job["team"], job["key_id"])])
    sink_log.delete_of_jobs(session, [job["number"]])
    outbox_log.withdraw(session, [job["number"]])
    fair_queue.enqueue(session, job["pool"], job["owner"])
    lifecycle.add_event(session, job, "queued")
    return select_job(session, owner, job_id)


def delete(session: Session, owner: str | None, job_id: str) -> Job:
    """Delete an ended job. Raises: JobNotFound, StillInFlight."""
    row = lock_job(session, owner, job_id)
    if not JobState(row["state"]).has_ended:
        raise StillInFlight(job_id)
    job = select_job(session, owner, job_id)
    housekeeping.delete_jobs(session, [row["number"]])
    return job


def want_preview(session: Session, owner: str | None, job_id: str) -> None:
    """Ask for previews in the next seconds. Raises: JobNotFound."""
    job = lock_job(session, owner, job_id)
    session.execute(
        "UPDATE jobs SET preview_until = :until WHERE number = :number",
        number=job["number"],
        until=uptime(session) + _PREVIEW_SECONDS,
    )
