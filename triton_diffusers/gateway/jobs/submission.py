"""Accepting jobs: idempotency keys, joining jobs in flight, limits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs import bounds, fair_queue, outbox_log, queries
from triton_diffusers.gateway.jobs.database import Session
from triton_diffusers.gateway.jobs.errors import KeyReused, TooManyJobs
from triton_diffusers.gateway.jobs.job import NewJob, OwnerLimits, Submitted
from triton_diffusers.gateway.jobs.lifecycle import add_event
from triton_diffusers.gateway.jobs.rows import check_text, select_job, to_json
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.uptime import uptime
from triton_diffusers.util.uuid7 import uuid7

_MAX_PRIORITY = 1_000_000
_INSERT = """INSERT INTO jobs (id, owner, pool, model, priority, label, dialect, tags, traceparent, fingerprint, work,
        cost, images, state, waits_until, callers, created, has_inputs, event, sink, team, key_id)
    VALUES (:id, :owner, :pool, :model, :priority, :label, :dialect, :tags, :traceparent, :fingerprint, :work,
        :cost, :images, 'queued', :waits_until, :callers, :created, :has_inputs, 1, :sink, :team, :key_id)
    RETURNING number"""


def check(owner: str, new: NewJob, settings: JobTableSettings) -> None:
    """Raise InvalidRequest unless a job can be kept."""
    texts = {name: getattr(new, name) for name in _TEXTS}
    texts |= {f"tags.{name}": value for name, value in new.tags.items()}
    for field, text in {"owner": owner, **texts}.items():
        check_text(field, field)
        check_text(field, text)
    if new.webhook is not None:
        check_text("webhook.url", new.webhook.url)
        check_text("webhook.base_url", new.webhook.base_url)
    for name, blob in new.inputs.items():
        check_text("inputs", name)
        check_text("inputs", blob.media_type)
    for field in ("work", "max_wait_seconds"):
        if (number := getattr(new, field)) is not None and not (math.isfinite(number) and number >= 0):
            raise InvalidRequest(field, number, "must be a number of at least 0")
    if not (math.isfinite(new.weight) and new.weight > 0):
        raise InvalidRequest("weight", new.weight, "must be a number above 0")
    if new.images < 1:
        raise InvalidRequest("images", new.images, "must be at least 1")
    if abs(new.priority) > _MAX_PRIORITY:
        raise InvalidRequest("priority", new.priority, f"must be between -{_MAX_PRIORITY} and {_MAX_PRIORITY}")
    size = sum(len(blob.data) for blob in new.inputs.values())
    if size > settings.max_input_bytes:
        raise InvalidRequest("inputs", "…", f"must have at most {settings.max_input_bytes} bytes, they have {size}")


_TEXTS = (
    "model",
    "pool",
    "label",
    "dialect",
    "idempotency_key",
    "fingerprint",
    "traceparent",
    "sink",
    "team",
    "key_id",
)


def submit(
    session: Session, settings: JobTableSettings, owner: str, jobs: Sequence[NewJob], limits: OwnerLimits
) -> Sequence[Submitted]:
    """Accept jobs, all or none. Raises: KeyReused, TooManyJobs, BoundReached, InvalidRequest."""
    session.execute("INSERT INTO owners VALUES (:owner) ON CONFLICT DO NOTHING", owner=owner)
    session.rows("SELECT owner FROM owners WHERE owner = :owner $for_update", owner=owner)
    subjects = {subject for new in jobs for subject in bounds.subjects_of(owner, new.team, new.key_id)}
    bounded = bounds.lock(session, subjects)
    submitted = []
    for new in jobs:
        earlier = _same_job(session, owner, new)
        if earlier is not None and new.waiting:
            session.execute(
                "UPDATE jobs SET callers = callers + 1, abandoned_at = NULL WHERE id = :id AND ended_uptime IS NULL",
                id=earlier,
            )
        job_id = earlier or _insert(session, settings, owner, new)
        submitted.append((job_id, earlier is None))
    accepted = [new for new, (_, created) in zip(jobs, submitted, strict=True) if created]
    bounds.charge(session, bounded, owner, [bounds.Charge(new.work, new.team, new.key_id) for new in accepted])
    if any(created for _, created in submitted):
        _check_limits(session, owner, limits)
    return [Submitted(job=select_job(session, owner, job_id), created=created) for job_id, created in submitted]


def _same_job(session: Session, owner: str, new: NewJob) -> str | None:
    """Return the id of an earlier job that ``new`` repeats."""
    if new.idempotency_key:
        rows = session.rows(
            "SELECT keys.fingerprint, keys.job_id FROM idempotency_keys AS keys JOIN jobs ON jobs.id = keys.job_id"
            " WHERE keys.owner = :owner AND keys.idempotency_key = :key AND keys.kept_until > :uptime",
            owner=owner,
            key=new.idempotency_key,
            uptime=uptime(session),
        )
        if rows and rows[0]["fingerprint"] != new.fingerprint:
            raise KeyReused(new.idempotency_key)
    elif new.fingerprint:
        rows = session.rows(
            "SELECT id AS job_id FROM jobs WHERE owner = :owner AND fingerprint = :fingerprint AND ended_uptime IS NULL"
            " AND cancel_requested = 0 ORDER BY number LIMIT 1 $for_update",
            owner=owner,
            fingerprint=new.fingerprint,
        )
    else:
        return None
    return rows[0]["job_id"] if rows else None


def _insert(session: Session, settings: JobTableSettings, owner: str, new: NewJob) -> str:
    job_id = str(uuid7())
    now, time = session.now(), uptime(session)
    (row,) = session.rows(
        _INSERT,
        id=job_id,
        owner=owner,
        **{name: getattr(new, name) for name in _COPIED},
        tags=json.dumps(dict(new.tags)),
        cost=new.work / new.weight,
        waits_until=None if new.max_wait_seconds is None else time + new.max_wait_seconds,
        callers=int(new.waiting),
        created=now,
        has_inputs=int(bool(new.inputs)),
    )
    number = row["number"]
    body = to_json("request", new.request, settings.max_request_bytes)
    session.execute("INSERT INTO requests VALUES (:number, :body)", number=number, body=body)
    for name, blob in new.inputs.items():
        session.execute(
            "INSERT INTO inputs VALUES (:number, :name, :media_type, :data)",
            number=number,
            name=name,
            media_type=blob.media_type,
            data=blob.data,
        )
    if new.webhook is not None:
        outbox_log.insert(session, number, job_id, owner, new.webhook)
    if new.idempotency_key:
        session.execute(
            "INSERT INTO idempotency_keys VALUES (:owner, :key, :fingerprint, :job_id, :kept_until)"
            " ON CONFLICT (owner, idempotency_key) DO UPDATE SET fingerprint = excluded.fingerprint,"
            " job_id = excluded.job_id, kept_until = excluded.kept_until",
            owner=owner,
            key=new.idempotency_key,
            fingerprint=new.fingerprint,
            job_id=job_id,
            kept_until=time + settings.idempotency_seconds,
        )
    fair_queue.enqueue(session, new.pool, owner)
    add_event(session, {"number": number}, "queued")
    return job_id


_COPIED = (
    *("pool", "model", "priority", "label", "dialect", "traceparent", "fingerprint", "work", "images", "sink", "team"),
    "key_id",
)


def _check_limits(session: Session, owner: str, limits: OwnerLimits) -> None:
    if limits.max_jobs is None and limits.max_work is None:
        return
    counters = queries.counters(session, owner)
    jobs, work = counters.queued + counters.running, counters.queued_work + counters.running_work
    if limits.max_jobs is not None and jobs > limits.max_jobs:
        raise TooManyJobs(f"there would be {jobs} jobs in flight; the limit is {limits.max_jobs}")
    if limits.max_work is not None and work > limits.max_work:
        raise TooManyJobs(f"there would be work of {work:g} in flight; the limit is {limits.max_work:g}")
