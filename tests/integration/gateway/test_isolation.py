"""Attempts of users on each other: every route of the gateway, called with another user's ids.

Each attempt with an id is made twice: with that of another user's job, and with one that does not exist. The answers
must be the same, and hold nothing of the other user; afterwards everything is as it was.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.postgres_server import PostgresServer
from tests.unit.gateway.conftest import Gateway, report
from tests.unit.gateway.served import running
from triton_diffusers.gateway.access.caller import SCOPES, Role
from triton_diffusers.gateway.access.declaration import GuardedRoute, guarded_routes
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.jobs.job import Blob, JobError, JobState, Progress
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.storage.local import LocalStore
from triton_diffusers.util.uuid7 import uuid7

pytestmark = [pytest.mark.anyio, pytest.mark.triton]

ACTOR = "tests"
SECRET = "unicorn"
SERVICE = "queue_async"
WITHIN = 120.0  # seconds; generous, for loaded machines
PUBLIC = ("/health/", "/metrics", "/openapi.json", "/api/setup")
# An administrator's own work; the routes are there to change others.
ADMINISTRATION = "/api/admin/"


@dataclass
class Victim:
    """A user with a job in each state, and with everything that can hang on a job."""

    key: str
    key_id: str
    done: str = ""
    dead: str = ""
    running: str = ""
    queued: str = ""
    queue_indexes: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    @property
    def jobs(self) -> Sequence[str]:
        return (self.done, self.dead, self.running, self.queued)


@dataclass
class House:
    """A gateway with users: a victim, and others who try."""

    gateway: Gateway
    victim: Victim
    keys: Mapping[str, str]
    routes: Sequence[GuardedRoute]
    port: int

    async def call(self, key: str, method: str, path: str, **fields: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}", **fields.pop("headers", {})}
        return await self.gateway.client.request(method, path, headers=headers, **fields)

    async def state(self) -> list[Any]:
        """Return all that others must not change."""
        jobs = await self.gateway.table.get_many(self.victim.jobs)
        sinks = self.gateway.table.store.sinks
        sink = await self.gateway.table.call(sinks.attributes, f"{jobs[0].owner}/{SERVICE}")
        preferences = await self.gateway.table.call(
            self.gateway.table.store.directory.preferences, jobs[0].owner, "a1111"
        )
        key = await self.gateway.table.call(self.gateway.service.accounts.key, self.victim.key_id)
        return [jobs, sink, preferences, key.revoked, key.bounds]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setenv("TRITON_DIFFUSERS_JOBS_LEASE_SECONDS", "3600")  # the victim's runner says nothing more
    database = "" if request.param == "sqlite" else request.getfixturevalue("postgres").new_schema()
    settings = {"database": database, "services": f"{SERVICE}=ensemble:async", "sync_seconds": 0.5}
    async with (
        running(tmp_path, **settings) as (port, service),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN) as client,
    ):
        store = LocalStore(tmp_path / "store")
        gateway = Gateway(service, client, ResultWriter(store, 0), tmp_path / "store")
        accounts = service.accounts
        keys = {}
        for name, role in (("root", Role.ADMIN), ("ann", Role.USER), ("bob", Role.USER), ("eve", Role.VIEWER)):
            team = "studio" if name in ("ann", "bob") else ""
            if name == "ann":
                accounts.add_team(team, actor=ACTOR)
            accounts.add_user(name, role=role, team=team, actor=ACTOR)
            keys[name] = accounts.add_key(name, scopes=SCOPES, actor=ACTOR).secret
        victim = Victim(keys.pop("ann"), accounts.keys(accounts.user("ann").id)[0].id)
        routes = guarded_routes(create_app(service).routes)
        house = House(gateway, victim, keys, routes, port)
        await _furnish(house)
        yield house


async def _furnish(house: House) -> None:
    """Give the victim its jobs."""
    gateway, victim = house.gateway, house.victim

    async def submit(**fields: Any) -> str:
        body = {"prompt": f"{SECRET} prompt", "task_id": f"{SECRET}-label", **fields}
        reply = await house.call(
            victim.key, "POST", "/api/jobs", json=body, headers={"Idempotency-Key": f"{SECRET} {len(victim.texts)}"}
        )
        assert reply.status_code == 202, reply.text
        victim.texts.add(reply.json()["id"])
        return str(reply.json()["id"])

    victim.done = await submit()
    await gateway.draw(images=[f"{SECRET} pixels".encode()], prompt=f"{SECRET} prompt")
    victim.dead = await submit()
    for _ in range(3):
        claim = await gateway.claim()
        await gateway.table.fail(claim.lease, JobError(message=f"{SECRET} error", code=469), retryable=True)
    for _ in range(2):
        body = {"prompt": f"{SECRET} prompt", "task_id": f"{SECRET}-label"}
        reply = await house.call(victim.key, "POST", f"/api/predict/{SERVICE}", json=body)
        victim.queue_indexes.append(int(reply.text))
        await gateway.draw(images=[f"{SECRET} pixels".encode()], prompt=f"{SECRET} prompt")
    victim.running = await submit()
    claim = await gateway.claim()
    preview = Blob(data=f"{SECRET} preview".encode(), media_type="image/jpeg")
    await report(gateway, claim, progress=Progress(step=3, steps=9), preview=preview)
    victim.queued = await submit()
    reply = await house.call(
        victim.key, "POST", "/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2, "samples_format": "jpg"}
    )
    assert reply.status_code in (200, 400), reply.text
    states = [job.state for job in await gateway.table.get_many(victim.jobs)]
    assert states == [JobState.SUCCEEDED, JobState.DEAD, JobState.RUNNING, JobState.QUEUED]


def _paths(route: GuardedRoute, victim: Victim) -> Iterator[tuple[str, str, str]]:
    """Yield the paths of a route with an id of the victim, the same with an unknown one, and the two ids."""
    values = {
        "job_id": [(job_id, str(uuid7())) for job_id in victim.jobs],
        "key_id": [(victim.key_id, "0" * 12)],
        "name": [("0.png", "0.png")] if "/images/" in route.path else [(SERVICE, SERVICE)],
        "path:path": [("x", "x")],
        "name:path": [("ensemble", "ensemble")],
    }
    names = [name for name in values if f"{{{name}}}" in route.path]
    for chosen in itertools.product(*(values[name] for name in names)):
        theirs = unknown = route.path
        for name, (one, other) in zip(names, chosen, strict=True):
            theirs, unknown = theirs.replace(f"{{{name}}}", one), unknown.replace(f"{{{name}}}", other)
        yield theirs, unknown, next((one for name, (one, _) in zip(names, chosen, strict=True) if "_id" in name), "")


def _attempts(house: House) -> Iterator[tuple[str, str, str, str]]:
    """Yield method, path of the victim's, path of nobody's, and the id, for every route of the application."""
    queries = {
        f"/api/predict/{SERVICE}": ["", "_attrs_=true", "_count_=true", *_numbered("_search_=true&_index_=", house)],
        f"/api/predict/{SERVICE}/sink": [
            *("", "_attrs_=true", "_count_=true", "_raw_=false&_length_=10&_index_=0", "_auto_delete_=true"),
            *_numbered("_search_=true&_index_=", house),
            *_numbered("_indexes_=", house),
            *("_trunc_=true&_index_=1000000",),
        ],
    }
    for route in house.routes:
        if route.path.startswith(PUBLIC) or route.path.startswith(ADMINISTRATION) or not route.methods:
            continue
        for theirs, unknown, known in _paths(route, house.victim):
            for method in sorted(route.methods):
                for query in queries.get(theirs, [""]):
                    end = f"?{query}" if query else ""
                    yield method, theirs + end, unknown + end, known


def _numbered(query: str, house: House) -> Sequence[str]:
    return [f"{query}{number}" for number in house.victim.queue_indexes]


def _holds_nothing(reply: httpx2.Response, house: House, sent: str) -> bool:
    found = reply.content + str(reply.headers).encode()
    ids = [job_id for job_id in house.victim.jobs if job_id != sent]
    return not any(text.encode() in found for text in (SECRET, house.victim.key, *ids))


async def test_nobody_reaches_what_is_anothers(house: House) -> None:
    before = await house.state()
    attempts = 0
    visited = set()
    for (name, key), (method, theirs, unknown, known) in itertools.product(house.keys.items(), _attempts(house)):
        body = {} if method in ("GET", "HEAD") else {"json": {}}
        reply = await house.call(key, method, theirs, **body)
        attempt = f"{name}: {method} {theirs}"
        assert _holds_nothing(reply, house, known), f"{attempt}: {reply.text[:500]}"
        if known:
            assert reply.status_code in (403, 404), attempt
            other = await house.call(key, method, unknown, **body)
            hidden = unknown.split("/")[3 if "jobs" in unknown else -1].partition("?")[0]
            assert (reply.status_code, reply.text.replace(known, hidden)) == (other.status_code, other.text), attempt
        visited.add((method, theirs.partition("?")[0]))
        attempts += 1
    assert attempts >= 60
    expected = {
        (method, path)
        for route in house.routes
        if not route.path.startswith((*PUBLIC, ADMINISTRATION))
        for method in route.methods
        for path, _, _ in _paths(route, house.victim)
    }
    assert visited == expected
    assert await house.state() == before


async def test_only_administrators_administrate(house: House) -> None:
    for route in house.routes:
        if not route.path.startswith(ADMINISTRATION):
            continue
        for method in sorted(route.methods):
            path = route.path.replace("{name}", "ann").replace("{key_id}", house.victim.key_id)
            for name in ("bob", "eve"):
                reply = await house.call(house.keys[name], method, path, json={})
                assert (reply.status_code, SECRET in reply.text) == (403, False), f"{name}: {method} {path}"


async def test_a_signed_url_is_of_one_image_and_its_time(house: House) -> None:
    done = (await house.call(house.victim.key, "GET", f"/api/jobs/{house.victim.done}")).json()
    url = httpx2.URL(done["result"]["images"][0]["url"])
    bearer = house.gateway.client
    assert (await bearer.get(url)).content == f"{SECRET} pixels".encode()
    query = dict(url.params)
    for change in ({"signature": "0" * 64}, {"expires": "99999999999"}, {"signature": ""}):
        reply = await bearer.get(url.copy_with(params=query | change))
        assert reply.status_code in (401, 404)
        assert SECRET not in reply.text
    for path in (f"/api/jobs/{house.victim.dead}/images/0.png", f"/api/jobs/{house.victim.done}/images/1.png"):
        assert (await bearer.get(path, params=query)).status_code == 404
    for path in (f"/api/jobs/{house.victim.done}", f"/api/jobs/{house.victim.running}/preview", "/api/jobs"):
        assert (await bearer.get(path, params=query)).status_code == 401


async def test_keys_labels_and_repeats_are_each_owners_own(house: House) -> None:
    body = {"prompt": f"{SECRET} prompt", "task_id": f"{SECRET}-label"}
    bob = house.keys["bob"]
    reply = await house.call(bob, "POST", "/api/jobs", json=body, headers={"Idempotency-Key": f"{SECRET} 0"})
    assert reply.status_code == 202
    assert reply.json()["id"] not in house.victim.jobs
    listed = (await house.call(bob, "GET", f"/api/jobs?task_id={SECRET}-label")).json()["jobs"]
    assert [job["id"] for job in listed] == [reply.json()["id"]]
    for cursor in (1, house.victim.queue_indexes[-1], 2**62):
        page = (await house.call(bob, "GET", f"/api/jobs?cursor={cursor}&limit=200")).json()["jobs"]
        assert {job["id"] for job in page} <= {reply.json()["id"]}


async def test_identical_requests_of_two_users_are_two_jobs(house: House) -> None:
    body = json.dumps({"prompt": "an apple"})
    keys = (house.victim.key, house.keys["bob"])
    replies = await asyncio.gather(*(house.call(key, "POST", "/api/predict/draw", content=body) for key in keys))
    assert [reply.status_code for reply in replies] == [504, 504]
    jobs = [job for job in (await house.gateway.table.jobs(None)).jobs if job.dialect == "reference"]
    assert len({job.owner for job in jobs}) == len(jobs) == 2


async def test_a_sink_sends_ones_own_results_only(house: House) -> None:
    bob = house.keys["bob"]
    index = int((await house.call(bob, "POST", f"/api/predict/{SERVICE}", json={"prompt": "a plum"})).text)
    address = f"ws://127.0.0.1:{house.port}/api/predict/{SERVICE}/sink?_watch_=true&_index_=0&_window_=10"
    for headers, status in (({}, 401), ({"Authorization": house.keys["eve"]}, 403)):
        with pytest.raises(InvalidStatus) as raised:
            await connect(address, additional_headers=headers)
        assert raised.value.response.status_code == status
    async with connect(address, additional_headers={"Authorization": bob}) as socket:
        while (claim := await house.gateway.claim()).job.number != index:
            await house.gateway.table.fail(claim.lease, JobError(message="-", code=469), retryable=False)
        await house.gateway.finish(claim)
        frame = await asyncio.wait_for(socket.recv(), WITHIN)
    assert isinstance(frame, bytes)
    assert b"a plum" in frame or claim.job.id.encode() in frame
    assert SECRET.encode() not in frame
