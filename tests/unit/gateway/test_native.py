"""Jobs as resources: submit, look, follow, cancel, delete."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway, ended, report
from triton_diffusers.gateway.jobs.job import Blob, Progress

pytestmark = pytest.mark.anyio


async def test_a_job_is_accepted_with_its_location_and_position(gateway: Gateway) -> None:
    await gateway.submit()
    reply = await gateway.client.post("/api/jobs", json={"prompt": "an apple", "task_id": "mine", "steps": 10})
    job = reply.json()
    assert (reply.status_code, reply.headers["location"]) == (202, f"/api/jobs/{job['id']}")
    assert (job["state"], job["task_id"], job["model"], job["position"]["ahead"]) == ("queued", "mine", "ensemble", 1)
    assert (await gateway.client.get(reply.headers["location"])).json() == job
    assert job["links"]["events"] == f"http://gateway/api/jobs/{job['id']}/events"


async def test_a_job_that_has_succeeded_has_its_images_by_signed_urls(gateway: Gateway) -> None:
    job = await gateway.submit(image_num=2, task_id="mine")
    await gateway.draw([b"first", b"second"], is_nsfw=[False, True])
    shown = (await gateway.client.get(f"/api/jobs/{job['id']}")).json()
    assert (shown["state"], shown["error"], shown["position"]) == ("succeeded", None, None)
    result = shown["result"]
    assert [image["is_nsfw"] for image in result["images"]] == [False, True]
    assert (result["prompt"], result["run_seconds"]) == ("an apple", 1.5)
    assert result["parameters"]["steps"] == 20
    assert shown["warnings"] == ["a warning of the model"]
    for image, content in zip(result["images"], (b"first", b"second"), strict=True):
        fetched = await gateway.client.get(image["url"])
        assert (fetched.status_code, fetched.content) == (200, content)
        assert fetched.headers["content-type"] == image["media_type"] == "image/png"
    assert all(place.startswith(f"file://{gateway.store_folder}/result/mine_") for place in result["oss_url"])


async def test_control_images_are_apart_from_images(gateway: Gateway) -> None:
    job = await gateway.submit(image_link="https://a.example/b.png", return_control_image=True)
    await gateway.draw([b"image"], control_images_base64=["Y29udHJvbA=="])
    result = (await gateway.client.get(f"/api/jobs/{job['id']}")).json()["result"]
    assert len(result["images"]) == len(result["control_images"]) == 1
    assert (await gateway.client.get(result["control_images"][0]["url"])).content == b"control"
    assert (await gateway.client.get(result["images"][0]["url"])).content == b"image"


async def test_a_changed_url_is_refused(gateway: Gateway) -> None:
    first, second = await gateway.submit(), await gateway.submit()
    await gateway.draw()
    await gateway.draw()
    url = (await gateway.client.get(f"/api/jobs/{first['id']}")).json()["result"]["images"][0]["url"]
    assert (await gateway.client.get(url)).status_code == 200
    reply = await gateway.client.get(url.replace(first["id"], second["id"]))
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found")
    assert "signature: the URL has expired or was changed" in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", ["1.png", "x.png", "-1.png", "99999999999"])
async def test_images_that_do_not_exist_are_not_found(gateway: Gateway, name: str) -> None:
    job = await gateway.submit()
    await gateway.draw()
    assert (await gateway.client.get(f"/api/jobs/{job['id']}/images/0.png")).status_code == 200
    assert (await gateway.client.get(f"/api/jobs/{job['id']}/images/{name}")).status_code == 404


async def test_an_invalid_field_is_told_with_value_and_rule(gateway: Gateway) -> None:
    reply = await gateway.client.post("/api/jobs", json={"prompt": "an apple", "steps": 900})
    assert reply.status_code == 400
    assert reply.json() == {
        "error": {
            "type": "bad_request",
            "code": 460,
            "message": "steps: 900 is invalid: must be between 1 and 150",
            "field": "steps",
            "value": "900",
            "rule": "must be between 1 and 150",
        }
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "body: '{' is invalid: must be JSON"),
        (b"[]", "body: [] is invalid: must be a JSON object"),
        (
            b'{"prompt": "a", "priority": 1000}',
            "priority: 1000 is invalid: must be a whole number between -100 and 100",
        ),
        (b'{"prompt": "a", "model": 7}', "model: 7 is invalid: must be text"),
        (b'{"prompt": "a", "model": "x"}', "model: 'x' is invalid: must be one of: ensemble, "),
        (b"{}", "prompt: None is invalid: the field is required"),
    ],
)
async def test_invalid_bodies_are_refused(gateway: Gateway, body: bytes, message: str) -> None:
    reply = await gateway.client.post("/api/jobs", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/jobs/unknown", 404),
        ("POST", "/api/jobs/unknown/cancel", 404),
        ("DELETE", "/api/jobs/unknown", 404),
        ("GET", "/api/jobs/unknown/events", 404),
        ("GET", "/api/jobs/unknown/preview", 404),
        ("GET", "/api/jobs?limit=0", 400),
        ("GET", "/api/jobs?state=asleep", 400),
        ("GET", "/api/nothing", 404),
        ("PUT", "/api/jobs", 405),
    ],
)
async def test_errors_have_one_shape(gateway: Gateway, method: str, path: str, status: int) -> None:
    reply = await gateway.client.request(method, path)
    assert reply.status_code == status
    assert reply.json()["error"].keys() >= {"type", "code", "message"}


async def test_waiting_returns_at_the_end_or_when_the_time_is_over(gateway: Gateway) -> None:
    job = await gateway.submit()
    path = f"/api/jobs/{job['id']}"
    assert (await gateway.client.get(f"{path}?wait=0.05")).json()["state"] == "queued"
    waiting = asyncio.create_task(gateway.client.get(f"{path}?wait=30"))
    await gateway.draw()
    assert (await ended(waiting)).json()["state"] == "succeeded"


async def test_priorities_and_models_reach_the_job(gateway: Gateway) -> None:
    late = await gateway.submit(priority=-5)
    soon = await gateway.submit(priority=5, model="sd_base")
    assert (await gateway.claim()).job.id == soon["id"]
    assert (soon["model"], soon["priority"], late["priority"]) == ("sd_base", 5, -5)


async def test_an_idempotency_key_makes_one_job(gateway: Gateway) -> None:
    async def post(prompt: str) -> Any:
        return await gateway.client.post("/api/jobs", json={"prompt": prompt}, headers={"Idempotency-Key": "k"})

    assert (await post("a")).json()["id"] == (await post("a")).json()["id"]
    other = await post("b")
    assert (other.status_code, other.json()["error"]["field"]) == (400, "Idempotency-Key")
    batch = {"jobs": [{"prompt": "a"}, {"prompt": "a"}]}
    first, again = [
        (await gateway.client.post("/api/jobs/batch", json=batch, headers={"Idempotency-Key": "b"})).json()
        for _ in range(2)
    ]
    assert [job["id"] for job in first["jobs"]] == [job["id"] for job in again["jobs"]]
    assert len({job["id"] for job in first["jobs"]}) == 2
    reply = await gateway.client.post("/api/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": "k" * 256})
    assert reply.status_code == 400


async def test_batches_are_accepted_as_a_whole(gateway: Gateway) -> None:
    good, bad = {"prompt": "a"}, {"prompt": "b", "steps": 900}
    reply = await gateway.client.post("/api/jobs/batch", json={"jobs": [good, good, bad]})
    assert (reply.status_code, reply.json()["error"]["field"]) == (400, "jobs[2].steps")
    assert reply.json()["error"]["message"].startswith("jobs[2].steps: 900 is invalid: ")
    assert (await gateway.client.get("/api/jobs")).json()["jobs"] == []
    reply = await gateway.client.post("/api/jobs/batch", json={"jobs": [good, good]})
    assert reply.status_code == 202
    assert len({job["id"] for job in reply.json()["jobs"]}) == 2
    for jobs in ([], [good] * 101, "x", [1]):
        assert (await gateway.client.post("/api/jobs/batch", json={"jobs": jobs})).status_code == 400


async def test_jobs_are_listed_page_by_page(gateway: Gateway) -> None:
    ids = [(await gateway.submit(task_id=f"task-{number % 2}"))["id"] for number in range(5)]
    await gateway.draw()
    first = (await gateway.client.get("/api/jobs?limit=3")).json()
    second = (await gateway.client.get(f"/api/jobs?limit=3&cursor={first['cursor']}")).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert second["cursor"] is None
    states = (await gateway.client.get("/api/jobs?state=succeeded&state=running")).json()["jobs"]
    assert [job["id"] for job in states] == [ids[0]]
    labelled = (await gateway.client.get("/api/jobs?task_id=task-1")).json()["jobs"]
    assert [job["id"] for job in labelled] == [ids[3], ids[1]]


async def test_a_queued_job_is_cancelled_at_once_and_a_running_one_by_its_runner(gateway: Gateway) -> None:
    running, queued = await gateway.submit(), await gateway.submit()
    claim = await gateway.claim()
    reply = (await gateway.client.post(f"/api/jobs/{queued['id']}/cancel")).json()
    assert reply["state"] == "cancelled"
    reply = (await gateway.client.post(f"/api/jobs/{running['id']}/cancel")).json()
    assert (reply["state"], reply["cancel_requested"]) == ("running", True)
    assert list((await report(gateway, claim)).cancelled) == [running["id"]]
    await gateway.table.finish_cancelled(claim.lease)
    assert (await gateway.client.get(f"/api/jobs/{running['id']}")).json()["state"] == "cancelled"


async def test_a_deleted_job_takes_its_images_along(gateway: Gateway) -> None:
    job = await gateway.submit()
    path = f"/api/jobs/{job['id']}"
    reply = await gateway.client.delete(path)
    assert (reply.status_code, (await gateway.client.get(path)).status_code) == (400, 200)
    await gateway.draw()
    assert len(list(gateway.store_folder.rglob("*.png"))) == 1
    assert (await gateway.client.delete(path)).status_code == 204
    assert list(gateway.store_folder.rglob("*.png")) == []
    assert (await gateway.client.get(path)).status_code == 404


async def test_a_failed_job_has_its_error(gateway: Gateway) -> None:
    job = await gateway.submit()
    await gateway.fail("image: 'x' is invalid: it is not an image", 462)
    shown = (await gateway.client.get(f"/api/jobs/{job['id']}")).json()
    assert shown["state"] == "failed"
    assert shown["error"]["code"] == 462
    assert shown["error"]["message"] == "image: 'x' is invalid: it is not an image"


def parsed(stream: str) -> list[tuple[str, int, dict[str, Any]]]:
    events = []
    for block in stream.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if lines:
            events.append((lines["event"], int(lines["id"]), json.loads(lines["data"])))
    return events


@pytest.mark.parametrize("digits", [18, 19, 20, 21, 400, 5000])
async def test_numbers_of_any_length_are_answered(gateway: Gateway, digits: int) -> None:
    job = await gateway.submit()
    await gateway.draw()
    number = "9" * digits
    for cursor in (number, f"-{number}"):
        assert (await gateway.client.get(f"/api/jobs?cursor={cursor}")).status_code in (200, 400)
    reply = await gateway.client.get(f"/api/jobs/{job['id']}/events", headers={"Last-Event-ID": number})
    assert reply.status_code == (204 if digits <= 20 else 200)


async def test_events_are_sent_until_the_end_and_continue_after_the_last_one(gateway: Gateway) -> None:
    job = await gateway.submit()
    path = f"/api/jobs/{job['id']}/events"
    following = asyncio.create_task(gateway.client.get(path))
    claim = await gateway.claim()
    await report(gateway, claim, progress=Progress(step=3, steps=10))
    await gateway.finish(claim)
    reply = await ended(following)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = parsed(reply.text)
    kinds, numbers = [kind for kind, _, _ in events], [number for _, number, _ in events]
    assert (kinds[0], kinds[-1]) == ("queued", "succeeded")
    assert numbers == sorted(set(numbers))
    rest = parsed((await gateway.client.get(path, headers={"Last-Event-ID": str(numbers[0])})).text)
    lasting = [number for kind, number, _ in events if kind != "progress"]
    assert [number for _, number, _ in rest] == lasting[1:]
    assert rest[-1][0] == "succeeded"
    reply = await gateway.client.get(path, headers={"Last-Event-ID": str(numbers[-1])})
    assert (reply.status_code, reply.content) == (204, b"")


async def test_progress_is_shown(gateway: Gateway) -> None:
    job = await gateway.submit(image_num=2)
    claim = await gateway.claim()
    await report(gateway, claim, progress=Progress(step=30, steps=100, images_done=1))
    shown = (await gateway.client.get(f"/api/jobs/{job['id']}")).json()
    assert (shown["state"], shown["attempts"]) == ("running", 1)
    assert shown["progress"] == {"step": 30, "steps": 100, "images_done": 1, "fraction": 0.3}
    await gateway.finish(claim)
    shown = (await gateway.client.get(f"/api/jobs/{job['id']}")).json()
    assert shown["progress"] == {"step": 100, "steps": 100, "images_done": 2, "fraction": 1.0}


async def test_a_preview_of_an_ended_job_is_not_waited_for(gateway: Gateway) -> None:
    job = await gateway.submit()
    await gateway.draw()
    async with asyncio.timeout(5):
        reply = await gateway.client.get(f"/api/jobs/{job['id']}/preview?wait=60")
    assert reply.status_code == 204


async def test_a_preview_is_made_when_it_is_wanted(gateway: Gateway) -> None:
    job = await gateway.submit()
    path = f"/api/jobs/{job['id']}/preview"
    claim = await gateway.claim()
    assert list((await report(gateway, claim)).previews_wanted) == []
    assert (await gateway.client.get(path)).status_code == 204
    assert list((await report(gateway, claim)).previews_wanted) == [job["id"]]
    waiting = asyncio.create_task(gateway.client.get(f"{path}?wait=30"))
    await report(gateway, claim, preview=Blob(data=b"small", media_type="image/jpeg"))
    reply = await ended(waiting)
    assert (reply.content, reply.headers["content-type"]) == (b"small", "image/jpeg")


async def test_the_queue_is_shown_in_counts(gateway: Gateway) -> None:
    await gateway.submit(steps=10, width=100, height=100)
    await gateway.submit()
    await gateway.claim()
    (pool,) = (await gateway.client.get("/api/queue")).json()
    assert (pool["pool"], pool["queued"], pool["running"]) == ("default", 1, 1)
    assert pool["running_work"] == pytest.approx(0.1)


async def test_too_many_queued_jobs_are_refused(gateway: Gateway) -> None:
    object.__setattr__(gateway.service.settings, "max_queued", 2)
    await gateway.submit()
    await gateway.submit()
    reply = await gateway.client.post("/api/jobs", json={"prompt": "a"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
    reply = await gateway.client.post("/", json={"prompt": "a"})
    assert (reply.status_code, reply.json()["error_code"]) == (429, 469)


async def test_the_schema_names_every_route_and_the_fields_of_a_request(gateway: Gateway) -> None:
    schema = (await gateway.client.get("/openapi.json")).json()
    assert {"/api/jobs", "/api/jobs/{job_id}", "/api/predict/{name}", "/health/ready"} <= schema["paths"].keys()
    body = schema["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"prompt", "steps", "controlnet_path", "model", "priority"} <= body["properties"].keys()
    assert body["required"] == ["prompt"]
