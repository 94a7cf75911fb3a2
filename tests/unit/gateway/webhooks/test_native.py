"""The field ``webhook`` of jobs, and what a job shows of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway

pytestmark = pytest.mark.anyio

URL = "https://hooks.example/x?key=1"
ALL = ["succeeded", "failed", "cancelled", "expired", "dead"]


async def shown(gateway: Gateway, job: dict[str, Any]) -> dict[str, Any]:
    return dict((await gateway.client.get(f"/api/jobs/{job['id']}")).json()["webhook"])


async def test_a_job_shows_its_webhook(gateway: Gateway) -> None:
    job = await gateway.submit(webhook={"url": URL, "events": ["failed", "dead"]})
    assert job["webhook"] == {
        "url": URL,
        "events": ["failed", "dead"],
        "state": "none",
        "message_id": None,
        "attempts": 0,
        "status": 0,
        "error": None,
        "settled": None,
    }
    assert "webhook" not in (await gateway.table.get(None, job["id"])).request["fields"]
    assert (await gateway.submit())["webhook"] is None


async def test_a_url_alone_wants_every_end(gateway: Gateway) -> None:
    job = await gateway.submit(webhook=URL)
    assert job["webhook"]["events"] == ALL
    await gateway.fail("no", 469)
    after = await shown(gateway, job)
    assert (after["state"], after["attempts"]) == ("waiting", 0)
    assert after["message_id"]


async def test_a_batch_has_a_webhook_for_jobs_without_one(gateway: Gateway) -> None:
    own = {"url": "https://own.example/", "events": ["dead"]}
    jobs = [{"prompt": "a"}, {"prompt": "b", "webhook": own}]
    reply = await gateway.client.post("/api/jobs/batch", json={"jobs": jobs, "webhook": URL})
    assert reply.status_code == 202, reply.text
    assert [job["webhook"]["url"] for job in reply.json()["jobs"]] == [URL, "https://own.example/"]


@pytest.mark.parametrize(
    ("value", "field", "rule"),
    [
        (7, "webhook", "must be a URL, or an object with url and events"),
        ({"url": URL, "secret": "x"}, "webhook", "must be a URL, or an object with url and events"),
        ({}, "webhook.url", "must be a URL"),
        ("http://10.0.0.1/", "webhook.url", "its host must be known and public"),
        ("javascript:x", "webhook.url", "must begin with http:// or https://"),
        ({"url": URL, "events": []}, "webhook.events", f"must be a list of: {', '.join(ALL)}"),
        ({"url": URL, "events": ["running"]}, "webhook.events", f"must be a list of: {', '.join(ALL)}"),
        ({"url": URL, "events": [{}]}, "webhook.events", f"must be a list of: {', '.join(ALL)}"),
    ],
)
async def test_an_invalid_webhook_is_refused(gateway: Gateway, value: Any, field: str, rule: str) -> None:
    reply = await gateway.client.post("/api/jobs", json={"prompt": "a", "webhook": value})
    error = reply.json()["error"]
    assert (reply.status_code, error["field"], error["rule"]) == (400, field, rule)
    reply = await gateway.client.post("/api/jobs/batch", json={"jobs": [{"prompt": "a", "webhook": value}]})
    assert reply.json()["error"]["field"] == f"jobs[0].{field}"


async def test_a_job_without_a_message_cannot_be_delivered_again(gateway: Gateway) -> None:
    job = await gateway.submit(webhook=URL)
    reply = await gateway.client.post(f"/api/jobs/{job['id']}/webhook/redeliver")
    assert (reply.status_code, reply.json()["error"]["field"]) == (400, "id")
    assert (await gateway.client.post("/api/jobs/unknown/webhook/redeliver")).status_code == 404


async def test_the_secret_is_the_callers(gateway: Gateway) -> None:
    secret = (await gateway.client.get("/api/webhook-secret")).json()["secret"]
    assert secret == gateway.service.webhook_signer.secret("local")
