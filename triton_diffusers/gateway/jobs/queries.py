"""Questions to the table that change nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.job import (
    MAX_NUMBER,
    Blob,
    Counters,
    Job,
    JobEvent,
    JobInFlight,
    JobState,
    LedgerEntry,
    Page,
    PoolLoad,
    Position,
)
from triton_diffusers.gateway.jobs.rows import event_from_row, ledger_entry, select_job, select_jobs, unique

_MAX_PAGE = 1000
# Jobs whose bills tell the speed of a pool.
_SPEED_SAMPLE = 50

# The start tags that the jobs of a pool will have if nothing else arrives, see ``fair_queue``.
_QUEUE = """SELECT id, work, owner FROM (
        SELECT jobs.id, jobs.work, jobs.owner, jobs.priority, jobs.number,
            accounts.virtual_time - jobs.cost + SUM(jobs.cost) OVER (
                PARTITION BY jobs.owner ORDER BY jobs.priority DESC, jobs.number
            ) AS start_tag
        FROM accounts JOIN jobs ON jobs.owner = accounts.owner AND jobs.pool = accounts.pool
        WHERE accounts.pool = :pool AND accounts.queued > 0 AND jobs.state = 'queued'
    ) AS queue ORDER BY start_tag, priority DESC, number"""


def page(
    session: Session,
    owner: str | None,
    states: Collection[JobState],
    label: str | None,
    cursor: int | None,
    limit: int,
) -> Page:
    """Return jobs, the newest first."""
    conditions = ["jobs.number < :cursor"]
    if owner is not None:
        conditions.append("jobs.owner = :owner")
    if states:
        conditions.append("jobs.state $in_states")
    if label is not None:
        conditions.append("jobs.label = :label")
    limit = max(1, min(limit, _MAX_PAGE))
    parameters: dict[str, Any] = {"owner": owner, "states": [str(state) for state in states], "label": label}
    parameters["cursor"] = MAX_NUMBER if cursor is None else cursor
    jobs = select_jobs(
        session, " AND ".join(conditions) + " ORDER BY jobs.number DESC LIMIT :limit", limit=limit + 1, **parameters
    )
    return Page(jobs=jobs[:limit], cursor=jobs[limit - 1].number if len(jobs) > limit else None)


def get_many(session: Session, job_ids: Collection[str]) -> Sequence[Job]:
    """Return those of the jobs that exist."""
    return select_jobs(session, "jobs.id $in_ids ORDER BY jobs.number", ids=unique(job_ids))


def event_numbers(session: Session, job_ids: Collection[str]) -> Mapping[str, int]:
    """Return the number of the last event of each job that exists."""
    rows = session.rows("SELECT id, event FROM jobs WHERE id $in_ids", ids=unique(job_ids))
    return {row["id"]: row["event"] for row in rows}


def events(session: Session, owner: str | None, job_id: str, after: int) -> Sequence[JobEvent]:
    """Return a job's events after a number."""
    job = select_job(session, owner, job_id)
    rows = session.rows(
        "SELECT number, kind, at, data FROM events WHERE job = :job AND number > :after", job=job.number, after=after
    )
    found = [event_from_row(job_id, row) for row in rows]
    (row,) = session.rows("SELECT progress_event, progress_at FROM jobs WHERE number = :job", job=job.number)
    if row["progress_event"] > after:
        progress = job.progress
        data = {"step": progress.step, "steps": progress.steps, "images_done": progress.images_done}
        number, at = row["progress_event"], row["progress_at"]
        found.append(JobEvent(job_id=job_id, number=number, kind="progress", at=at, data=data))
    return sorted(found, key=lambda event: event.number)


def in_flight(session: Session, owner: str, sink: str) -> Sequence[JobInFlight]:
    """Return the jobs in flight of an owner that go to a sink."""
    rows = session.rows(
        "SELECT id, number, state, priority, tags FROM jobs"
        " WHERE owner = :owner AND ended_uptime IS NULL AND sink = :sink ORDER BY number",
        owner=owner,
        sink=sink,
    )
    return [
        JobInFlight(
            id=row["id"],
            number=row["number"],
            state=JobState(row["state"]),
            priority=row["priority"],
            tags=json.loads(row["tags"]),
        )
        for row in rows
    ]


def preview(session: Session, owner: str | None, job_id: str) -> Blob | None:
    """Return a job's latest preview."""
    job = select_job(session, owner, job_id)
    rows = session.rows("SELECT media_type, data FROM previews WHERE job = :job", job=job.number)
    return _blob(rows[0]) if rows else None


def inputs(session: Session, job_id: str) -> Mapping[str, Blob]:
    """Return a job's inputs by name."""
    job = select_job(session, None, job_id)
    rows = session.rows("SELECT name, media_type, data FROM inputs WHERE job = :job", job=job.number)
    return {row["name"]: _blob(row) for row in rows}


def _blob(row: Row) -> Blob:
    return Blob(data=bytes(row["data"]), media_type=row["media_type"])


def counters(session: Session, owner: str) -> Counters:
    """Return what an owner has in flight."""
    rows = session.rows(
        "SELECT state, COUNT(*) AS jobs, SUM(work) AS work FROM jobs"
        " WHERE owner = :owner AND ended_uptime IS NULL GROUP BY state",
        owner=owner,
    )
    found = {row["state"]: row for row in rows}
    queued, running = found.get(JobState.QUEUED), found.get(JobState.RUNNING)
    return Counters(
        queued=queued["jobs"] if queued else 0,
        queued_work=queued["work"] if queued else 0.0,
        running=running["jobs"] if running else 0,
        running_work=running["work"] if running else 0.0,
    )


def ledger(session: Session, owner: str | None, after: int, limit: int) -> Sequence[LedgerEntry]:
    """Return bills after a number."""
    condition = "" if owner is None else " AND owner = :owner"
    rows = session.rows(
        f"SELECT * FROM ledger WHERE number > :after{condition} ORDER BY number LIMIT :limit",  # noqa: S608
        after=after,
        owner=owner,
        limit=max(1, min(limit, _MAX_PAGE)),
    )
    return [ledger_entry(row) for row in rows]


def load(session: Session) -> Sequence[PoolLoad]:
    """Return the load of each pool with jobs in flight."""
    rows = session.rows(
        "SELECT pool, COUNT(*) AS jobs, SUM(work) AS work, MIN(created) AS oldest FROM jobs WHERE state = 'queued'"
        " GROUP BY pool"
    )
    queued = {row["pool"]: row for row in rows}
    rows = session.rows(
        "SELECT pool, COUNT(*) AS jobs, SUM(work) AS work FROM jobs WHERE state = 'running' GROUP BY pool"
    )
    running = {row["pool"]: row for row in rows}
    now = session.now()
    return [
        PoolLoad(
            pool=pool,
            queued=queued[pool]["jobs"] if pool in queued else 0,
            queued_work=queued[pool]["work"] if pool in queued else 0.0,
            running=running[pool]["jobs"] if pool in running else 0,
            running_work=running[pool]["work"] if pool in running else 0.0,
            oldest_wait_seconds=max(0.0, now - queued[pool]["oldest"]) if pool in queued else 0.0,
            work_per_second=_speed(session, pool),
        )
        for pool in sorted(queued.keys() | running.keys())
    ]


def positions(session: Session, pool: str) -> Mapping[str, Position]:
    """Return the places of all queued jobs of a pool."""
    rows = session.rows(
        "SELECT SUM(work * (1.0 - CASE WHEN steps > 0 THEN (step * 1.0) / steps ELSE 0.0 END)) AS work,"
        " COUNT(*) AS jobs FROM jobs WHERE state = 'running' AND pool = :pool",
        pool=pool,
    )
    work, runners = rows[0]["work"] or 0.0, max(1, rows[0]["jobs"])
    speed = _speed(session, pool)
    found = {}
    for ahead, row in enumerate(session.rows(_QUEUE, pool=pool)):
        found[row["id"]] = Position(ahead=ahead, wait_seconds=work / (speed * runners) if speed else None)
        work += row["work"]
    return found


def _speed(session: Session, pool: str) -> float | None:
    """Return the work of a second of one running job, by the latest bills."""
    (row,) = session.rows(
        "SELECT SUM(work) AS work, SUM(run_seconds) AS seconds FROM"
        " (SELECT work, run_seconds FROM ledger WHERE pool = :pool ORDER BY number DESC LIMIT :sample) AS latest",
        pool=pool,
        sample=_SPEED_SAMPLE,
    )
    return row["work"] / row["seconds"] if row["seconds"] else None
