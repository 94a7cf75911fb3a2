"""Changes of a job's state, with what has to happen in the same transaction: events, the queue's counts, the bill."""

from __future__ import annotations

import json
from typing import Any

from triton_diffusers.gateway.jobs import bounds, fair_queue, outbox_log, sink_log, usage
from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.job import Bill, JobError, JobState
from triton_diffusers.gateway.jobs.rows import storable
from triton_diffusers.gateway.jobs.uptime import uptime


def add_event(session: Session, job: Row, kind: str, **data: Any) -> None:
    """Append an event to a job's; the statement that has changed the job has counted it in ``jobs.event``."""
    session.execute(
        "INSERT INTO events (job, number, kind, at, data)"
        " VALUES (:number, (SELECT event FROM jobs WHERE number = :number), :kind, :at, :data)",
        number=job["number"],
        kind=kind,
        at=session.now(),
        data=json.dumps(data),
    )


def start(session: Session, job: Row, runner: str, lease_until: float) -> None:
    """Give a queued job to a runner."""
    session.execute(
        "UPDATE jobs SET state = 'running', event = event + 1, attempts = attempts + 1, epoch = epoch + 1,"
        " runner = :runner, lease_until = :lease_until, started = :now, step = 0, steps = 0, images_done = 0"
        " WHERE number = :number",
        number=job["number"],
        runner=runner,
        lease_until=lease_until,
        now=session.now(),
    )
    fair_queue.charge(session, job["pool"], job["owner"], job["cost"])
    add_event(session, job, "running", attempt=job["attempts"] + 1)


def void_lease(session: Session, job: Row) -> None:
    """Refuse the job's lease from now on, not only when it is claimed again."""
    session.execute("UPDATE jobs SET epoch = epoch + 1 WHERE number = :number", number=job["number"])


def requeue(session: Session, job: Row, *, reason: str, attempts: int) -> None:
    """Put a running job back to its place in the queue; one that is to be cancelled ends instead."""
    void_lease(session, job)
    if job["cancel_requested"]:
        end(session, job, JobState.CANCELLED)
        return
    session.execute(
        "UPDATE jobs SET state = 'queued', event = event + 1, attempts = :attempts, runner = '', lease_until = NULL,"
        " started = NULL, step = 0, steps = 0, images_done = 0, progress_event = 0, error = :reason"
        " WHERE number = :number",
        number=job["number"],
        attempts=attempts,
        reason=storable(reason),
    )
    _drop_preview(session, job)
    fair_queue.enqueue(session, job["pool"], job["owner"])
    add_event(session, job, "queued", reason=storable(reason))


def give_up_attempt(session: Session, job: Row, error: JobError, max_attempts: int) -> None:
    """Put a running job whose attempt has failed back to the queue; after the last attempt it is dead."""
    if job["attempts"] < max_attempts or job["cancel_requested"]:
        requeue(session, job, reason=error.message, attempts=job["attempts"])
    else:
        end(session, job, JobState.DEAD, error=error)


def cancel(session: Session, job: Row) -> None:
    """End a queued job, or ask the runner of a running one to stop; from then on it cannot succeed."""
    if job["state"] == JobState.QUEUED:
        end(session, job, JobState.CANCELLED)
    elif job["state"] == JobState.RUNNING and not job["cancel_requested"]:
        session.execute(
            "UPDATE jobs SET cancel_requested = 1, event = event + 1, abandoned_at = NULL WHERE number = :number",
            number=job["number"],
        )
        add_event(session, job, "cancelling")


def end(
    session: Session,
    job: Row,
    state: JobState,
    *,
    result: str | None = None,
    error: JobError | None = None,
    bill: Bill | None = None,
) -> None:
    """End a job in flight, with its result and its bill."""
    now = session.now()
    if job["state"] == JobState.QUEUED:
        bounds.give_back(session, job)
        fair_queue.dequeue(session, job["pool"], job["owner"])
    session.execute(
        "UPDATE jobs SET state = :state, event = event + 1, ended = :now, ended_uptime = :uptime,"
        " lease_until = NULL, waits_until = NULL, abandoned_at = NULL, callers = 0, progress_event = 0,"
        " has_results = :has_results, error = :error, error_code = :code WHERE number = :number",
        number=job["number"],
        state=str(state),
        now=now,
        uptime=uptime(session),
        # Images of a run that was cancelled or lost may have been stored.
        has_results=int(job["epoch"] > 0),
        error=None if error is None else storable(error.message),
        code=0 if error is None else error.code,
    )
    if result is not None:
        session.execute("INSERT INTO results VALUES (:number, :body)", number=job["number"], body=result)
    _drop_preview(session, job)
    if bill is not None:
        _write_bill(session, job, state, bill, now)
    sink_log.append(session, job, state, now)
    outbox_log.append(session, job, state)
    add_event(session, job, str(state))


def _write_bill(session: Session, job: Row, state: JobState, bill: Bill, now: float) -> None:
    (counter,) = session.rows("UPDATE counters SET value = value + 1 WHERE name = 'ledger' RETURNING value")
    session.execute(
        "INSERT INTO ledger (number, job_id, owner, team, key_id, model, pool, tags, state, at, run_seconds, work,"
        " megapixel_steps, image_steps, engine_seconds) VALUES (:number, :job_id, :owner, :team, :key_id, :model,"
        " :pool, :tags, :state, :at, :run_seconds, :work, :megapixel_steps, :image_steps, :engine_seconds)",
        number=counter["value"],
        job_id=job["id"],
        **{name: job[name] for name in ("owner", "team", "key_id", "model", "pool", "tags", "work")},
        state=str(state),
        at=now,
        run_seconds=max(0.0, now - (job["started"] or now)),
        megapixel_steps=bill.megapixel_steps,
        image_steps=bill.image_steps,
        engine_seconds=bill.engine_seconds,
    )
    usage.add(session, job, bill, now)


def _drop_preview(session: Session, job: Row) -> None:
    session.execute("DELETE FROM previews WHERE job = :number", number=job["number"])
