"""Messages of the outbox: made by the end of a job, and withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.job import JobState, NewWebhook, Webhook, WebhookState
from triton_diffusers.gateway.jobs.uptime import uptime
from triton_diffusers.util.uuid7 import uuid7

_INSERT = """INSERT INTO webhooks (job, job_id, owner, url, host, base_url, events)
    VALUES (:number, :job_id, :owner, :url, :host, :base_url, :events)"""
_APPEND = """UPDATE webhooks SET state = 'waiting', message_id = :id, made = :uptime, due = :uptime, attempts = 0,
    epoch = epoch + 1, status = 0, error = '', settled = NULL WHERE job = :number"""
_WITHDRAW = """UPDATE webhooks SET state = 'none', message_id = '', attempts = 0, epoch = epoch + 1, status = 0,
    error = '', settled = NULL WHERE job $in_numbers"""


def insert(session: Session, number: int, job_id: str, owner: str, new: NewWebhook) -> None:
    """Insert the webhook of a new job."""
    session.execute(
        _INSERT,
        number=number,
        job_id=job_id,
        owner=owner,
        url=new.url,
        host=new.host,
        base_url=new.base_url,
        events=",".join(new.events),
    )


def append(session: Session, job: Row, state: JobState) -> None:
    """Make the message of a job that has ended, if its webhook wants it."""
    rows = session.rows("SELECT events FROM webhooks WHERE job = :number", number=job["number"])
    if rows and state in rows[0]["events"].split(","):
        session.execute(_APPEND, number=job["number"], id=str(uuid7()), uptime=uptime(session))


def withdraw(session: Session, numbers: Collection[int]) -> None:
    """Take the messages of jobs back that will end again."""
    session.execute(_WITHDRAW, numbers=numbers)


def webhook_of(row: Mapping[str, Any]) -> Webhook | None:
    """Return the webhook of a job's row, whose columns have the prefix ``webhook_``; None if it has none."""
    if row["webhook_url"] is None:
        return None
    return Webhook(
        **{name: row[f"webhook_{name}"] for name in _SAME},
        events=tuple(JobState(name) for name in row["webhook_events"].split(",")),
        state=WebhookState(row["webhook_state"]),
    )


_SAME = ("url", "base_url", "message_id", "attempts", "status", "error", "settled")
COLUMNS = ", ".join(f"webhooks.{name} AS webhook_{name}" for name in (*_SAME, "events", "state"))
"""Columns that ``webhook_of`` reads."""
