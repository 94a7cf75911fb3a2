"""Random histories of a job table on both databases, compared with a model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.machine import JobTableMachine

_CHECKS = tuple(HealthCheck)


def run_histories(examples: int, url: str | None, **options: object) -> None:
    """Drive a table through random histories."""
    machine = type("Machine", (JobTableMachine,), {"url": url})
    chosen = settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=_CHECKS)
    run_state_machine_as_test(machine, settings=settings(chosen, **options))


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
