"""Random histories of a job table on both databases, compared with a model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.machine import SETTINGS, JobTableMachine
from triton_diffusers.gateway.jobs.stores import open_store

_CHECKS = tuple(HealthCheck)


def run_histories(examples: int, url: str | None, **options: object) -> None:
    """Drive a table through random histories."""
    shared = () if url is None else tuple(open_store(url, SETTINGS) for _ in range(2))
    machine = type("Machine", (JobTableMachine,), {"url": url, "shared": shared})
    chosen = settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=_CHECKS)
    try:
        run_state_machine_as_test(machine, settings=settings(chosen, **options))
    finally:
        for store in shared:
            store.close()


def test_histories_on_sqlite() -> None:
    run_histories(40, None, derandomize=True)


def test_histories_on_postgresql(postgres: PostgresServer) -> None:
    run_histories(10, postgres.new_schema(), derandomize=True)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_thousands_of_histories_on_sqlite() -> None:
    run_histories(5000, None, database=None)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_thousands_of_histories_on_postgresql(postgres: PostgresServer) -> None:
    run_histories(5000, postgres.new_schema(), database=None)
