"""Job tables of the tests, on both databases, with a clock that they move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.tables import Table
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

STORES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    return str(request.getfixturevalue("postgres").new_schema())


@pytest.fixture
def open_table(url: str) -> Iterator[Callable[..., Table]]:
    """Return a function that opens the table, as another process would."""
    tables: list[Table] = []

    def open_one(**settings: float) -> Table:
        tables.append(Table(open_store(url, JobTableSettings(**settings))))
        return tables[-1]

    yield open_one
    for table in tables:
        table.store.close()


@pytest.fixture
def table(open_table: Callable[..., Table]) -> Table:
    return open_table()
