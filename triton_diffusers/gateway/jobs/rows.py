"""Conversion between rows of the database and the types of ``job``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs import outbox_log
from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.errors import JobNotFound
from triton_diffusers.gateway.jobs.job import Bill, Job, JobError, JobEvent, JobState, LedgerEntry, Progress

_MAX_TEXT = 1000

_JOBS = f"""SELECT jobs.*, requests.body AS request, results.body AS result, {outbox_log.COLUMNS} FROM jobs
    JOIN requests ON requests.job = jobs.number LEFT JOIN results ON results.job = jobs.number
    LEFT JOIN webhooks ON webhooks.job = jobs.number"""  # noqa: S608


def select_jobs(session: Session, condition: str, /, **parameters: Any) -> Sequence[Job]:
    """Return the jobs that meet a condition, which may also order and limit them."""
    return [_job(row) for row in session.rows(f"{_JOBS} WHERE {condition}", **parameters)]


def select_job(session: Session, owner: str | None, job_id: str) -> Job:
    """Return a job. Raises: JobNotFound."""
    if is_text(job_id) and (jobs := select_jobs(session, f"jobs.id = :id{_of(owner)}", id=job_id, owner=owner)):
        return jobs[0]
    raise JobNotFound(job_id)


def lock_job(session: Session, owner: str | None, job_id: str) -> Row:
    """Return the row of a job, which nobody else changes before this transaction ends. Raises: JobNotFound."""
    statement = f"SELECT * FROM jobs WHERE id = :id{_of(owner)} $for_update"  # noqa: S608  # constants
    if is_text(job_id) and (rows := session.rows(statement, id=job_id, owner=owner)):
        return rows[0]
    raise JobNotFound(job_id)


def _of(owner: str | None) -> str:
    """Return the condition that jobs are an owner's.

    The database decides, so that the job of somebody else takes no more time than one that does not exist, and no lock.
    """
    return "" if owner is None else " AND jobs.owner = :owner"


def _job(row: Row) -> Job:
    return Job(
        **{name: row[name] for name in _SAME},
        request=json.loads(row["request"]),
        tags=json.loads(row["tags"]),
        state=JobState(row["state"]),
        cancel_requested=bool(row["cancel_requested"]),
        progress=Progress(step=row["step"], steps=row["steps"], images_done=row["images_done"]),
        result=None if row["result"] is None else json.loads(row["result"]),
        error=None if row["error"] is None else JobError(message=row["error"], code=row["error_code"]),
        webhook=outbox_log.webhook_of(row),
    )


_SAME = (
    *("id", "number", "owner", "model", "pool", "work", "images", "priority", "label", "dialect", "sink"),
    *("traceparent", "attempts", "runner", "created", "started", "ended", "event"),
)


def event_from_row(job_id: str, row: Row) -> JobEvent:
    """Return an event from its row."""
    return JobEvent(job_id=job_id, number=row["number"], kind=row["kind"], at=row["at"], data=json.loads(row["data"]))


def ledger_entry(row: Row) -> LedgerEntry:
    """Return a ledger entry from its row."""
    return LedgerEntry(
        **{name: row[name] for name in _LEDGER_SAME},
        tags=json.loads(row["tags"]),
        state=JobState(row["state"]),
        bill=Bill(**{name: row[name] for name in ("megapixel_steps", "image_steps", "engine_seconds")}),
    )


_LEDGER_SAME = ("number", "job_id", "owner", "team", "key_id", "model", "pool", "at", "run_seconds", "work")


def to_json(field: str, value: Mapping[str, Any], max_bytes: int) -> str:
    """Return a JSON object as text of ASCII characters.

    Raises: InvalidRequest: it is not JSON, or too large.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(field, "…", f"cannot be written as JSON: {error}") from error
    if len(text) > max_bytes:
        raise InvalidRequest(field, "…", f"must have at most {max_bytes} bytes as JSON, it has {len(text)}")
    return text


def check_text(field: str, text: str) -> None:
    """Raise InvalidRequest unless both databases can keep ``text``."""
    if not is_text(text):
        raise InvalidRequest(
            field, text, f"must be at most {_MAX_TEXT} characters of Unicode without NUL and lone surrogates"
        )


def is_text(text: str) -> bool:
    """Return True if both databases can keep ``text``."""
    return len(text) <= _MAX_TEXT and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def storable(text: str, max_length: int = 2000) -> str:
    """Return ``text`` cut to a length, with what databases cannot keep replaced."""
    return text[:max_length].replace("\0", "\ufffd").encode(errors="replace").decode()


def unique(ids: Collection[str]) -> Sequence[str]:
    """Return the ids that can exist, each once, in an order that is the same in all transactions."""
    return sorted({job_id for job_id in ids if is_text(job_id)})
