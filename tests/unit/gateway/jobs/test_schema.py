"""Migrations of the schema, on both databases."""

from __future__ import annotations

import pytest

from tests.unit.gateway.jobs.tables import START
from triton_diffusers.gateway.jobs import schema
from triton_diffusers.gateway.jobs.bounds import day_of
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

_BEFORE_USAGE = 4
_BILL = """INSERT INTO ledger (number, job_id, owner, model, pool, tags, state, at, run_seconds, work, megapixel_steps,
        image_steps, engine_seconds)
    VALUES (:number, :job_id, 'ann', 'sd_base', 'p', '{}', 'succeeded', :at, 1, 1, 2, 3, 4)"""


def test_bills_from_before_the_sums_are_added_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:_BEFORE_USAGE])
        old = open_store(url, JobTableSettings())
    midnight = day_of(START) * 86_400.0
    for number, at in enumerate((midnight, midnight + 86_399.9, midnight + 86_400.0)):
        old.database.write(lambda session, n=number, at=at: session.execute(_BILL, number=n, job_id=str(n), at=at))
    old.close()
    new = open_store(url, JobTableSettings())
    rows = new.usage("ann", 0, day_of(START) + 10)
    new.close()
    assert [(row.day - day_of(START), row.jobs, row.megapixel_steps) for row in rows] == [(0, 2, 4.0), (1, 1, 2.0)]
