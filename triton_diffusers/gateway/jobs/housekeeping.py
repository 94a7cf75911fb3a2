"""Work of the sweeps: due leases and waits, abandoned jobs, retention."""

from __future__ import annotations

from collections.abc import Sequence

from triton_diffusers.gateway.jobs import bounds, claims, fair_queue, lifecycle, sink_log
from triton_diffusers.gateway.jobs.database import Session
from triton_diffusers.gateway.jobs.job import Job, JobError, JobState
from triton_diffusers.gateway.jobs.rows import select_jobs, unique
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.uptime import is_due, uptime

# Jobs of one transaction, so that no sweep holds others up.
_BATCH = 100

_LEASES = "SELECT * FROM jobs WHERE state = 'running' AND lease_until <= :time ORDER BY lease_until LIMIT :max"
_WAITS = (
    "SELECT * FROM jobs WHERE state = 'queued' AND waits_until IS NOT NULL AND waits_until <= :time"
    " ORDER BY waits_until LIMIT :max"
)
_ABANDONED = (
    "SELECT * FROM jobs WHERE abandoned_at IS NOT NULL AND abandoned_at <= :time ORDER BY abandoned_at LIMIT :max"
)
_INPUTS = "SELECT number FROM jobs WHERE has_inputs = 1 AND state != 'dead' AND ended_uptime <= :time LIMIT :max"
_ENDED = """SELECT number FROM jobs WHERE has_results = 0 AND ended_uptime <= :time AND NOT EXISTS (
    SELECT 1 FROM webhooks WHERE webhooks.job = jobs.number AND webhooks.state = 'waiting') LIMIT :max"""
_KEYS = "SELECT owner, idempotency_key FROM idempotency_keys WHERE kept_until <= :time LIMIT :max"
_OLD = (
    f"SELECT EXISTS ({_INPUTS.replace(':time', ':inputs_time')}) OR EXISTS ({_ENDED.replace(':time', ':jobs_time')})"
    f" OR EXISTS ({_KEYS.replace(':time', ':keys_time')}) AS old"
)
_RESULTS = "jobs.has_results = 1 AND jobs.ended_uptime <= :time ORDER BY jobs.ended_uptime LIMIT :limit"
_BELONGINGS = ("requests", "results", "inputs", "previews", "events", "webhooks")


def due(session: Session) -> tuple[bool, bool]:
    """Return two booleans: it is time for a tick; if so, ``expire`` has something to do."""
    if not is_due(session):
        return False, False
    statement = f"SELECT EXISTS ({_LEASES}) OR EXISTS ({_WAITS}) OR EXISTS ({_ABANDONED}) AS due"
    (row,) = session.rows(statement, time=uptime(session), max=1)
    return True, bool(row["due"])


def has_old(session: Session, settings: JobTableSettings) -> bool:
    """Return True if ``delete_old`` has something to do."""
    time = uptime(session)
    (row,) = session.rows(
        _OLD,
        keys_time=time,
        inputs_time=time - settings.input_retention_seconds,
        jobs_time=time - _job_retention(settings),
        max=1,
    )
    return bool(row["old"])


def expire(session: Session, settings: JobTableSettings) -> None:
    """Expire leases and waits, and cancel abandoned jobs; pass over jobs that another transaction has locked."""
    fair_queue.lock_pools(session)
    bounds.lock_all(session)
    time = uptime(session)
    lost = session.rows(f"{_LEASES} $skip_locked", time=time, max=_BATCH)
    claims.expire_leases(session, settings, lost)
    for job in session.rows(f"{_WAITS} $skip_locked", time=time, max=_BATCH):
        lifecycle.end(session, job, JobState.EXPIRED, error=JobError(message="the job has waited for too long"))
    for job in session.rows(f"{_ABANDONED} $skip_locked", time=time, max=_BATCH):
        lifecycle.cancel(session, job)


def forget_runner(session: Session, settings: JobTableSettings, runner: str) -> Sequence[str]:
    """Expire all leases of a runner; return the ids of their jobs."""
    fair_queue.lock_pools(session)
    jobs = session.rows("SELECT * FROM jobs WHERE state = 'running' AND runner = :runner $skip_locked", runner=runner)
    claims.expire_leases(session, settings, jobs)
    return [job["id"] for job in jobs]


def delete_old(session: Session, settings: JobTableSettings) -> None:
    """Delete inputs, rows and idempotency keys whose retention is over."""
    time = uptime(session)
    rows = session.rows(f"{_INPUTS} $skip_locked", time=time - settings.input_retention_seconds, max=_BATCH)
    numbers = [row["number"] for row in rows]
    session.execute("DELETE FROM inputs WHERE job $in_numbers", numbers=numbers)
    session.execute("UPDATE jobs SET has_inputs = 0 WHERE number $in_numbers", numbers=numbers)
    rows = session.rows(f"{_ENDED} $skip_locked", time=time - _job_retention(settings), max=_BATCH)
    delete_jobs(session, [row["number"] for row in rows])
    for row in session.rows(_KEYS, time=time, max=_BATCH):
        session.execute(
            "DELETE FROM idempotency_keys WHERE owner = :owner AND idempotency_key = :key AND kept_until <= :time",
            owner=row["owner"],
            key=row["idempotency_key"],
            time=time,
        )


def delete_jobs(session: Session, numbers: Sequence[int]) -> None:
    """Delete jobs and all that belongs to them but their bills."""
    sink_log.delete_of_jobs(session, numbers)
    for table in _BELONGINGS:
        session.execute(f"DELETE FROM {table} WHERE job $in_numbers", numbers=numbers)  # noqa: S608  # constants
    session.execute("DELETE FROM jobs WHERE number $in_numbers", numbers=numbers)


def expired_results(session: Session, settings: JobTableSettings, limit: int) -> Sequence[Job]:
    """Return jobs whose results are to be deleted."""
    return select_jobs(session, _RESULTS, time=uptime(session) - settings.result_retention_seconds, limit=limit)


def drop_results(session: Session, job_ids: Sequence[str]) -> None:
    """Note that results were deleted."""
    rows = session.rows(
        "SELECT number FROM jobs WHERE id $in_ids AND has_results = 1 ORDER BY id $for_update", ids=unique(job_ids)
    )
    numbers = [row["number"] for row in rows]
    sink_log.delete_of_jobs(session, numbers)
    session.execute("DELETE FROM results WHERE job $in_numbers", numbers=numbers)
    session.execute("UPDATE jobs SET has_results = 0 WHERE number $in_numbers", numbers=numbers)


def _job_retention(settings: JobTableSettings) -> float:
    return settings.result_retention_seconds + settings.job_retention_seconds
