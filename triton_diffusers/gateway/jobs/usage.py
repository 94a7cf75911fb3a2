"""Sums of the ledger by day, written in the transactions that write bills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from triton_diffusers.gateway.jobs.bounds import day_of
from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.job import Bill

_ADD = """INSERT INTO usage_days VALUES (:day, :owner, :team, :key_id, :model, 1, :work, :image_steps, :seconds)
    ON CONFLICT (day, owner, team, key_id, model) DO UPDATE SET jobs = usage_days.jobs + 1,
        megapixel_steps = usage_days.megapixel_steps + excluded.megapixel_steps,
        image_steps = usage_days.image_steps + excluded.image_steps,
        engine_seconds = usage_days.engine_seconds + excluded.engine_seconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bills of one day (of UTC, by its number), owner, team, key and model, added up."""

    day: int
    owner: str
    team: str
    key_id: str
    model: str
    jobs: int
    megapixel_steps: float
    image_steps: int
    engine_seconds: float


def add(session: Session, job: Row, bill: Bill, now: float) -> None:
    """Count a bill."""
    session.execute(
        _ADD,
        day=day_of(now),
        **{name: job[name] for name in ("owner", "team", "key_id", "model")},
        work=bill.megapixel_steps,
        image_steps=bill.image_steps,
        seconds=bill.engine_seconds,
    )


def report(session: Session, owner: str | None, first_day: int, end_day: int) -> Sequence[Usage]:
    """Return the usage of the days from ``first_day`` to before ``end_day``, of one owner or of all."""
    condition = "" if owner is None else " AND owner = :owner"
    rows = session.rows(
        f"SELECT * FROM usage_days WHERE day >= :first AND day < :end{condition}"  # noqa: S608  # constants
        " ORDER BY day, owner, team, key_id, model",
        first=first_day,
        end=end_day,
        owner=owner,
    )
    return [Usage(**{field.name: row[field.name] for field in fields(Usage)}) for row in rows]
