"""The web UI's API with users: logins as its clients send them, and each caller's own options, progress and jobs."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.unit.gateway.a1111.calls import OPTIONS, PARAMETERS, PROGRESS, TXT2IMG, encoded, image_of
from tests.unit.gateway.access.conftest import Users
from tests.unit.gateway.conftest import Gateway, ended
from triton_diffusers.gateway.jobs.job import JobState

pytestmark = pytest.mark.anyio


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_a_login_is_the_key_as_password(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    for headers in ({}, {"authorization": ""}, {"authorization": "Basic "}, basic("ann:wrong")):
        reply = await gateway.client.get(OPTIONS, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"].startswith("Basic ")
        assert reply.json()["detail"].startswith("key: ")
    assert (await gateway.client.get(OPTIONS, headers=basic(f"ann:{key}"))).status_code == 200


async def test_callers_do_not_meet(gateway: Gateway, users: Users) -> None:
    ann, bob = users.add("ann"), users.add("bob")
    document = {"prompt": "an apple", "force_task_id": "same", "override_settings": {}}
    waiting = asyncio.create_task(users.call(ann, "POST", TXT2IMG, json=document))
    claim = await gateway.claim()
    assert (await users.call(ann, "POST", OPTIONS, json={"CLIP_stop_at_last_layers": 2})).status_code == 200
    assert (await users.call(bob, "GET", OPTIONS)).json()["CLIP_stop_at_last_layers"] == 1
    shown = [(await users.call(key, "GET", PROGRESS)).json()["state"]["job_count"] for key in (ann, bob)]
    tasks = [(await users.call(key, "GET", "/internal/pending-tasks")).json()["tasks"] for key in (ann, bob)]
    assert (shown, tasks) == ([1, 0], [["same"], []])
    for path in ("/sdapi/v1/interrupt", "/sdapi/v1/skip"):
        assert (await users.call(bob, "POST", path)).json() == {}
    progress = (await users.call(bob, "POST", "/internal/progress", json={"id_task": "same"})).json()
    assert (progress["active"], progress["completed"]) == (False, False)
    assert (await gateway.table.get(None, claim.job.id)).state is JobState.RUNNING
    await gateway.finish(claim, [encoded()], parameters=PARAMETERS)
    assert image_of((await ended(waiting)).json()["images"][0]).size == (32, 16)
