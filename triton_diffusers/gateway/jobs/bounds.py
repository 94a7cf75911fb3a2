"""Bounds on the work of keys, users and teams, checked when jobs are accepted.

Work is in megapixel-steps. Days and months are of UTC; their use is what was billed in them, and what is in flight: a
job is charged when it is accepted, and one that does not run costs nothing. The rate is a token bucket of one minute.
Rows are locked while jobs are accepted, so that bounds are exact over all gateways.

Lock order: bounds, account. Whoever ends several jobs locks all bounds first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.errors import BoundReached

DAY_SECONDS = 86_400
_MINUTE_SECONDS = 60.0
_COLUMNS = {"user": "owner", "team": "team", "key": "key_id"}
_ROUNDING = 1e-9

_USE = """SELECT
    (SELECT COALESCE(SUM(megapixel_steps), 0) FROM usage_days WHERE {column} = :id AND day = :today) AS day,
    (SELECT COALESCE(SUM(megapixel_steps), 0) FROM usage_days WHERE {column} = :id AND day >= :first) AS month,
    (SELECT COALESCE(SUM(work), 0) FROM jobs WHERE {column} = :id AND ended_uptime IS NULL) AS in_flight"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of a key, a user or a team, in megapixel-steps; None: unbounded. ``in_flight`` is queued and running."""

    per_minute: float | None = None
    per_day: float | None = None
    per_month: float | None = None
    in_flight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundsUse:
    """Bounds, and their use: of this day and month with what is in flight, and what the rate allows now."""

    bounds: Bounds
    day: float
    month: float
    in_flight: float
    allowed_now: float | None


@dataclass(frozen=True, slots=True)
class Charge:
    """Work of a job to be accepted."""

    work: float
    team: str
    key_id: str


def subject(kind: str, name: str) -> str:
    """Return the subject of bounds: a ``user`` (owner), a ``team`` or a ``key``."""
    return f"{kind}:{name}"


def subjects_of(owner: str, team: str, key_id: str) -> Sequence[str]:
    """Return the subjects whose bounds a job counts for."""
    named = (("key", key_id), ("team", team), ("user", owner))
    return [subject(kind, name) for kind, name in named if name]


def set_bounds(session: Session, of: str, bounds: Bounds) -> None:
    """Replace the bounds of a subject; a new rate begins with a full bucket. Raises: InvalidRequest."""
    values = {field.name: getattr(bounds, field.name) for field in fields(Bounds)}
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidRequest(name, value, "must be a number of at least 0")
    session.execute(
        "INSERT INTO bounds VALUES (:subject, :per_minute, :per_day, :per_month, :in_flight, :bucket, :now)"
        " ON CONFLICT (subject) DO UPDATE SET per_minute = excluded.per_minute, per_day = excluded.per_day,"
        " per_month = excluded.per_month, in_flight = excluded.in_flight, bucket = excluded.bucket,"
        " bucket_at = excluded.bucket_at",
        subject=of,
        **values,
        bucket=bounds.per_minute or 0.0,
        now=session.now(),
    )


def all_bounds(session: Session) -> Mapping[str, Bounds]:
    """Return the bounds of all subjects that have some."""
    return {row["subject"]: _bounds(row) for row in session.rows("SELECT * FROM bounds ORDER BY subject")}


def use(session: Session, of: str) -> BoundsUse:
    """Return the bounds of a subject and their use."""
    rows = session.rows("SELECT * FROM bounds WHERE subject = :subject", subject=of)
    used = _used(session, of)
    return BoundsUse(
        bounds=_bounds(rows[0]) if rows else Bounds(),
        day=used["day"] + used["in_flight"],
        month=used["month"] + used["in_flight"],
        in_flight=used["in_flight"],
        allowed_now=None if not rows or rows[0]["per_minute"] is None else _level(rows[0], session.now()),
    )


def lock(session: Session, subjects: Collection[str]) -> Sequence[Row]:
    """Return the bounds of subjects that have some, which nobody else changes or charges before this ends."""
    statement = "SELECT * FROM bounds WHERE subject $in_subjects ORDER BY subject $for_update"
    return session.rows(statement, subjects=sorted(subjects))


def lock_all(session: Session) -> None:
    """Wait for everybody who accepts jobs of bounded subjects."""
    session.rows("SELECT subject FROM bounds ORDER BY subject $for_update")


def charge(session: Session, bounded: Sequence[Row], owner: str, new: Iterable[Charge]) -> None:
    """Charge locked bounds for jobs that were just inserted. Raises: BoundReached. InvalidRequest: it never fits."""
    new = list(new)
    for row in bounded:
        work = sum(each.work for each in new if row["subject"] in subjects_of(owner, each.team, each.key_id))
        if work > 0:
            _charge(session, row, work)


def give_back(session: Session, job: Row) -> None:
    """Give a job's work back to the rates that it was charged to."""
    for row in lock(session, subjects_of(job["owner"], job["team"], job["key_id"])):
        if row["per_minute"] is not None:
            _set_level(session, row, min(row["per_minute"], _level(row, session.now()) + job["work"]))


def _charge(session: Session, row: Row, work: float) -> None:
    who, now = f"the {row['subject'].partition(':')[0]}", session.now()
    for name in ("per_day", "per_month", "in_flight"):
        if (bound := row[name]) is not None and work > bound + _ROUNDING:
            raise InvalidRequest("work", f"{work:g}", f"{who} may use {bound:g} megapixel-steps {_PERIODS[name]}")
    if any(row[name] is not None for name in _PERIODS):
        used = _used(session, row["subject"])
        _check(row, "in_flight", who, used["in_flight"], work, None)
        _check(row, "per_day", who, used["day"] + used["in_flight"], work, next_day(now) - now)
        _check(row, "per_month", who, used["month"] + used["in_flight"], work, next_month(now) - now)
    if (rate := row["per_minute"]) is None:
        return
    level, needed = _level(row, now), min(work, rate) or work
    if level + _ROUNDING < needed:
        seconds = (needed - level) / rate * _MINUTE_SECONDS if rate else None
        raise BoundReached(
            f"{who} may start {rate:g} megapixel-steps a minute, {max(0.0, level):.4g} now", work, seconds
        )
    _set_level(session, row, level - work)


_PERIODS = {"per_day": "a day", "per_month": "a month", "in_flight": "at a time"}


def _check(row: Row, name: str, who: str, used: float, work: float, seconds: float | None) -> None:
    """Raise BoundReached if the use, which has the new work in it, is above a bound."""
    if (bound := row[name]) is not None and used > bound + _ROUNDING:
        message = f"{who} may use {bound:g} megapixel-steps {_PERIODS[name]}, {used - work:.4g} are used"
        raise BoundReached(message, work, seconds)


def _used(session: Session, of: str) -> Row:
    """Return the use of a subject. One statement: a job that ends meanwhile is counted once."""
    kind, _, name = of.partition(":")
    today = day_of(session.now())
    first = day_of(datetime.fromtimestamp(session.now(), UTC).replace(day=1).timestamp())
    (row,) = session.rows(_USE.format(column=_COLUMNS[kind]), id=name, today=today, first=first)
    return row


def _level(row: Row, now: float) -> float:
    """Return the content of a subject's bucket; a debt is below 0."""
    gained = max(0.0, now - row["bucket_at"]) * row["per_minute"] / _MINUTE_SECONDS
    return float(min(row["per_minute"], row["bucket"] + gained))


def _set_level(session: Session, row: Row, level: float) -> None:
    session.execute(
        "UPDATE bounds SET bucket = :level, bucket_at = :now WHERE subject = :subject",
        level=level,
        now=session.now(),
        subject=row["subject"],
    )


def _bounds(row: Row) -> Bounds:
    return Bounds(**{field.name: row[field.name] for field in fields(Bounds)})


def day_of(at: float) -> int:
    """Return the number of a day of UTC."""
    return int(at // DAY_SECONDS)


def next_day(at: float) -> float:
    """Return the begin of the next day of UTC."""
    return float((day_of(at) + 1) * DAY_SECONDS)


def next_month(at: float) -> float:
    """Return the begin of the next month of UTC."""
    day = datetime.fromtimestamp(at, UTC)
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
