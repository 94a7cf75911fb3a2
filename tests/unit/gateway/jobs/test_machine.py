"""Random histories of a job table on both databases, compared with a model."""

from __future__ import annotations

import pytest

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.histories import new_table, processes, run_histories, run_in_processes


def test_histories_on_sqlite() -> None:
    run_histories(40, None, derandomize=True)


def test_histories_on_postgresql(postgres: PostgresServer) -> None:
    run_histories(10, new_table(postgres), derandomize=True)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_thousands_of_histories_on_sqlite() -> None:
    run_in_processes(5000, [None] * processes())


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_thousands_of_histories_on_postgresql(postgres: PostgresServer) -> None:
    run_in_processes(5000, [new_table(postgres) for _ in range(processes())])
