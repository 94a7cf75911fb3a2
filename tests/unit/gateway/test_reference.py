"""The reference's REST interface, as its clients use it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.unit.gateway.asgi import Call
from tests.unit.gateway.conftest import Gateway, ended
from tests.waiting import WITHIN
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.jobs.job import JobState

pytestmark = pytest.mark.anyio

PATH = "/api/predict/diffuser_base_ch"
REQUEST: dict[str, Any] = {"task_id": "test_1", "prompt": "an apple", "seed": 7, "image_num": 2, "steps": 10}


def posted(gateway: Gateway, path: str = PATH, **changes: Any) -> asyncio.Task[httpx2.Response]:
    """Send what the reference's examples send: text, a raw token, no content type."""
    body = json.dumps({**REQUEST, **changes})
    return asyncio.create_task(gateway.client.post(path, content=body, headers={"Authorization": "a-token"}))


@pytest.mark.parametrize("path", [PATH, "/"])
async def test_a_request_is_answered_when_its_images_are_finished(gateway: Gateway, path: str) -> None:
    waiting = posted(gateway, path)
    job = await gateway.draw([b"first", b"second"], is_nsfw=[False, True])
    reply = await ended(waiting)
    assert reply.status_code == 200
    answer = reply.json()
    urls, places = answer.pop("image_url"), answer.pop("oss_url")
    assert answer == {
        "success": 1,
        "task_id": "test_1",
        "seed": "7",
        "prompt": "an apple",
        "is_nsfw": [False, True],
        "use_blade": False,
        "profile": "exact",
        "queue_seconds": 0.25,
        "run_seconds": 1.5,
        "warnings": ["a warning of the model"],
    }
    assert [(await gateway.client.get(url)).content for url in urls] == [b"first", b"second"]
    assert [Path(place.removeprefix("file://")).read_bytes() for place in places] == [b"first", b"second"]
    name = rf"result/test_1_\d{{8}}_\d{{6}}-{job.id}_0\.png"
    assert re.search(name + "$", places[0])


async def test_images_come_as_base64_if_they_are_wanted(gateway: Gateway) -> None:
    waiting = posted(gateway, use_base64=True)
    await gateway.draw([b"\xff\xfe", b"second"])
    assert (await ended(waiting)).json()["images_base64"] == ["__4=", base64.urlsafe_b64encode(b"second").decode()]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"steps": 900}, 460, "steps: 900 is invalid: must be between 1 and 150"),
        ({"prompt": None}, 460, "prompt: None is invalid: the field is required"),
        ({"func_name": "x2i"}, 460, "func_name: 'x2i' is invalid: must be one of: t2i, i2i, inpaint, outpaint"),
        ({"func_name": "i2i", "image_base64": "!"}, 462, "image_base64: '!' is invalid: "),
    ],
)
async def test_errors_have_the_references_codes_as_statuses(
    gateway: Gateway, changes: dict[str, Any], code: int, message: str
) -> None:
    reply = await ended(posted(gateway, **changes))
    assert reply.status_code == code
    assert reply.json()["error_code"] == code
    assert reply.json()["success"] == 0
    assert reply.json()["error_msg"].startswith(message)


async def test_a_body_that_is_not_json_is_460(gateway: Gateway) -> None:
    reply = await gateway.client.post(PATH, content="{'prompt'")
    assert (reply.status_code, reply.json()["error_code"]) == (460, 460)


@pytest.mark.parametrize(("code", "status"), [(460, 460), (462, 462), (469, 469)])
async def test_the_error_of_a_job_is_answered(gateway: Gateway, code: int, status: int) -> None:
    waiting = posted(gateway)
    await gateway.fail("x" * 300, code)
    reply = await ended(waiting)
    assert reply.status_code == status
    assert reply.json() == {"success": 0, "error_code": code, "error_msg": "x" * 200}


async def test_a_name_of_a_service_chooses_the_model(gateway: Gateway) -> None:
    for path, fields, model in (
        (PATH, {}, "ensemble"),
        (PATH, {"controlnet_path": "a", "image_link": "https://a.example/b.png"}, "ensemble_controlnet"),
        ("/api/predict/diffuser_control", {"image_link": "https://a.example/b.png"}, "ensemble_controlnet"),
    ):
        waiting = posted(gateway, path, **fields)
        assert (await gateway.draw()).model == model
        assert (await ended(waiting)).status_code == 200


@pytest.mark.parametrize("gateway_settings", [{"services": "a = sd_base, b=ensemble_controlnet"}])
async def test_a_configured_service_has_its_model(gateway: Gateway) -> None:
    waiting = posted(gateway, "/api/predict/a")
    assert (await gateway.draw()).model == "sd_base"
    assert (await ended(waiting)).status_code == 200


@pytest.mark.parametrize("gateway_settings", [{"services": "*=ensemble_controlnet"}])
async def test_a_service_without_a_name_takes_the_model_of_all_others(gateway: Gateway) -> None:
    waiting = posted(gateway, "/", image_link="https://a.example/b.png")
    assert (await gateway.draw()).model == "ensemble_controlnet"
    assert (await ended(waiting)).status_code == 200


async def test_identical_requests_in_flight_are_one_job(gateway: Gateway) -> None:
    waiting = [posted(gateway) for _ in range(3)]
    other = posted(gateway, seed=8)
    await gateway.draw()
    await gateway.draw()
    replies = [(await ended(task)).json() for task in (*waiting, other)]
    assert len({reply["oss_url"][0] for reply in replies[:3]}) == 1
    assert replies[3]["seed"] == "8"
    assert (await gateway.client.get("/api/jobs")).json()["cursor"] is None
    assert len((await gateway.client.get("/api/jobs")).json()["jobs"]) == 2


async def test_a_cancelled_job_is_told(gateway: Gateway) -> None:
    waiting = posted(gateway)
    while not (jobs := (await gateway.client.get("/api/jobs")).json()["jobs"]):
        await asyncio.sleep(0.01)
    await gateway.client.post(f"/api/jobs/{jobs[0]['id']}/cancel")
    reply = await ended(waiting)
    assert (reply.status_code, reply.json()["error_code"]) == (409, 469)


async def hung_up(gateway: Gateway) -> Call:
    """Return the call of a caller who has sent a request, and hangs up while its job waits."""
    call = Call(create_app(gateway.service))
    call.scope |= {"path": PATH, "raw_path": PATH.encode(), "query_string": b"", "scheme": "http", "server": ("a", 1)}
    call.send(json.dumps(REQUEST).encode())
    task = asyncio.create_task(call.run())
    while not (await gateway.table.jobs(None)).jobs:
        await asyncio.sleep(0.01)
    call.hang_up()
    await asyncio.wait_for(task, WITHIN)
    return call


@pytest.mark.parametrize("gateway_settings", [{"leave_seconds": 0}])
async def test_a_caller_who_hangs_up_cancels_the_job(gateway: Gateway) -> None:
    call = await hung_up(gateway)
    assert call.status == 499
    await gateway.table.sweep()
    (job,) = (await gateway.table.jobs(None)).jobs
    assert job.state is JobState.CANCELLED


@pytest.mark.parametrize("gateway_settings", [{"leave_seconds": 30}])
async def test_a_caller_who_comes_back_soon_gets_the_same_job(gateway: Gateway) -> None:
    await hung_up(gateway)
    waiting = posted(gateway)
    await asyncio.sleep(0.1)
    await gateway.table.sweep()
    job = await gateway.draw()
    assert job.state is JobState.SUCCEEDED
    assert (await ended(waiting)).status_code == 200
    assert len((await gateway.table.jobs(None)).jobs) == 1


@pytest.mark.parametrize("gateway_settings", [{"sync_seconds": 0.1, "leave_seconds": 0}])
async def test_a_job_that_takes_too_long_is_given_up(gateway: Gateway) -> None:
    reply = await ended(posted(gateway))
    assert (reply.status_code, reply.json()["error_code"]) == (504, 469)
    await gateway.table.sweep()
    (job,) = (await gateway.table.jobs(None)).jobs
    assert job.state is JobState.CANCELLED
