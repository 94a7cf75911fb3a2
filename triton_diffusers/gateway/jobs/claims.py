"""Leases: handing jobs to runners, and what runners say of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from triton_diffusers.gateway.jobs import fair_queue, lifecycle
from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.errors import JobNotFound, LeaseLost
from triton_diffusers.gateway.jobs.job import Bill, Claim, Job, JobError, JobState, Lease, Report, Signals
from triton_diffusers.gateway.jobs.rows import lock_job, select_job
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.uptime import uptime

_LOST = JobError(message="the runner was lost")
_ENDED_BY_RUNNER = (JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED, JobState.DEAD)


def claim(
    session: Session, settings: JobTableSettings, runner: str, pool: str, models: Collection[str], max_images: int
) -> Sequence[Claim]:
    """Hand out jobs in fair order while their images fit."""
    if not fair_queue.lock_pool(session, pool):
        return []
    lease_until = uptime(session) + settings.lease_seconds
    claimed: list[Lease] = []
    room = max_images
    while room > 0 and (job := next(fair_queue.next_jobs(session, pool, models), None)) is not None:
        if claimed and job["images"] > room:
            break
        lifecycle.start(session, job, runner, lease_until)
        claimed.append(Lease(job["id"], job["epoch"] + 1))
        room -= job["images"]
    return [Claim(job=select_job(session, None, lease.job_id), lease=lease) for lease in claimed]


def renew(session: Session, settings: JobTableSettings, reports: Sequence[Report]) -> Signals:
    """Renew leases and post progress."""
    time = uptime(session)
    lost, cancelled, previews_wanted = [], [], []
    for report in sorted(reports, key=lambda report: report.lease.job_id):
        job_id = report.lease.job_id
        rows = session.rows(
            "UPDATE jobs SET lease_until = :lease_until WHERE id = :id AND epoch = :epoch AND state = 'running'"
            " RETURNING number, cancel_requested, preview_until",
            id=job_id,
            epoch=report.lease.epoch,
            lease_until=time + settings.lease_seconds,
        )
        if not rows:
            lost.append(job_id)
            continue
        _post(session, rows[0], report)
        if rows[0]["cancel_requested"]:
            cancelled.append(job_id)
        elif rows[0]["preview_until"] > time:
            previews_wanted.append(job_id)
    return Signals(lost=lost, cancelled=cancelled, previews_wanted=previews_wanted)


def _post(session: Session, job: Row, report: Report) -> None:
    if report.progress is not None:
        session.execute(
            "UPDATE jobs SET step = :step, steps = :steps, images_done = :images_done, event = event + 1,"
            " progress_event = event + 1, progress_at = :now WHERE number = :number",
            number=job["number"],
            step=report.progress.step,
            steps=report.progress.steps,
            images_done=report.progress.images_done,
            now=session.now(),
        )
    if report.preview is not None:
        session.execute(
            "INSERT INTO previews VALUES (:number, :media_type, :data)"
            " ON CONFLICT (job) DO UPDATE SET media_type = excluded.media_type, data = excluded.data",
            number=job["number"],
            media_type=report.preview.media_type,
            data=report.preview.data,
        )


def finish(session: Session, lease: Lease, result: str, bill: Bill) -> Job:
    """End a job with its result and bill. Raises: LeaseLost."""
    if (job := _leased(session, lease)) is not None:
        if job["cancel_requested"]:
            lifecycle.end(session, job, JobState.CANCELLED, bill=bill)
        else:
            lifecycle.end(session, job, JobState.SUCCEEDED, result=result, bill=bill)
    return select_job(session, None, lease.job_id)


def fail(
    session: Session, settings: JobTableSettings, lease: Lease, error: JobError, retryable: bool, bill: Bill | None
) -> Job:
    """End a job with an error, or queue it again. Raises: LeaseLost."""
    if (job := _leased(session, lease)) is not None:
        if job["cancel_requested"]:
            lifecycle.end(session, job, JobState.CANCELLED, bill=bill)
        elif retryable:
            lifecycle.give_up_attempt(session, job, error, settings.max_attempts)
        else:
            lifecycle.end(session, job, JobState.FAILED, error=error, bill=bill)
    return select_job(session, None, lease.job_id)


def finish_cancelled(session: Session, lease: Lease, bill: Bill | None) -> Job:
    """End a cancelled job. Raises: LeaseLost."""
    if (job := _leased(session, lease)) is not None:
        lifecycle.end(session, job, JobState.CANCELLED, bill=bill)
    return select_job(session, None, lease.job_id)


def release(session: Session, leases: Sequence[Lease]) -> None:
    """Hand jobs back unharmed."""
    fair_queue.lock_pools(session)
    for lease in sorted(leases, key=lambda lease: lease.job_id):
        try:
            job = _leased(session, lease)
        except LeaseLost:
            continue
        if job is not None:
            fair_queue.refund(session, job["pool"], job["owner"], job["cost"])
            lifecycle.requeue(session, job, reason="", attempts=job["attempts"] - 1)


def expire_leases(session: Session, settings: JobTableSettings, jobs: Sequence[Row]) -> None:
    """Take jobs from runners that were lost."""
    for job in jobs:
        lifecycle.void_lease(session, job)
        lifecycle.give_up_attempt(session, job, _LOST, settings.max_attempts)


def _leased(session: Session, lease: Lease) -> Row | None:
    """Return the row of a job in flight; None if it has ended under this lease, so that a call may be repeated.

    Raises: LeaseLost.
    """
    try:
        job = lock_job(session, None, lease.job_id)
    except JobNotFound:
        raise LeaseLost(lease.job_id, lease.epoch) from None
    if job["epoch"] == lease.epoch and job["state"] == JobState.RUNNING:
        return job
    if job["epoch"] == lease.epoch and job["state"] in _ENDED_BY_RUNNER:
        return None
    raise LeaseLost(lease.job_id, lease.epoch)
