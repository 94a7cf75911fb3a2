"""Accounts of the tests: a store of users and keys, and gateways with users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.postgres_server import PostgresServer
from tests.unit.gateway.conftest import Gateway
from tests.unit.gateway.jobs.tables import Table
from triton_diffusers.gateway.access.caller import SCOPES, Role
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

ACTOR = "tests"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Table]:
    sqlite = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres").new_schema()
    opened = Table(open_store(url, JobTableSettings()))
    yield opened
    opened.store.close()


@pytest.fixture
def accounts(table: Table) -> AccessStore:
    return AccessStore(table.store.database)


class Users:
    """The users of a gateway: an administrator, and others with a key each."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.accounts = gateway.service.accounts
        self.accounts.add_user("root", role=Role.ADMIN, actor=ACTOR)
        self.admin_key = self.accounts.add_key("root", scopes=SCOPES, actor=ACTOR).secret

    def add(self, name: str, role: Role = Role.USER, **fields: Any) -> str:
        """Make a user and return a key."""
        self.accounts.add_user(name, role=role, actor=ACTOR, **fields)
        return self.accounts.add_key(name, actor=ACTOR).secret

    async def call(self, key: str, method: str, path: str, **fields: Any) -> httpx2.Response:
        """Send a request with a key."""
        headers = {"Authorization": f"Bearer {key}", **fields.pop("headers", {})}
        return await self.gateway.client.request(method, path, headers=headers, **fields)

    async def submit(self, key: str, **fields: Any) -> dict[str, Any]:
        """Submit a job with a key."""
        reply = await self.call(key, "POST", "/api/jobs", json={"prompt": "an apple", **fields})
        assert reply.status_code == 202, reply.text
        return dict(reply.json())


@pytest.fixture
def users(gateway: Gateway) -> Users:
    return Users(gateway)
