"""Health, metrics and upkeep of a gateway."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.housekeeping import Housekeeper
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.settings import SettingsError

pytestmark = pytest.mark.anyio


async def test_a_gateway_is_live_and_ready(gateway: Gateway) -> None:
    assert (await gateway.client.get("/health/live")).json() == {"status": "live"}
    assert (await gateway.client.get("/health/ready")).json() == {"status": "ready"}


async def test_a_gateway_without_its_table_is_live_but_not_ready(gateway: Gateway, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("DROP TABLE jobs")
    reply = await gateway.client.get("/health/ready")
    assert (reply.status_code, reply.json()["status"]) == (503, "unavailable")
    assert (await gateway.client.get("/health/live")).status_code == 200


async def page(gateway: Gateway) -> dict[str, float]:
    text = (await gateway.client.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_metrics_show_the_queue_and_time_the_jobs(gateway: Gateway) -> None:
    following = asyncio.create_task(gateway.service.metrics.follow(gateway.table))
    await gateway.submit(steps=10, width=100, height=100)
    await gateway.submit()
    await gateway.client.get("/api/jobs/unknown")
    shown = await page(gateway)
    assert shown['sd_queue_jobs{pool="default"}'] == 2
    assert shown['sd_gateway_requests_total{route="/api/jobs",status="202"}'] == 2
    assert shown['sd_gateway_requests_total{route="/api/jobs/{job_id}",status="404"}'] == 1
    await gateway.draw()
    labels = 'dialect="native",model="ensemble"'
    while (shown := await page(gateway)).get(f"sd_job_total_seconds_count{{{labels}}}") != 1:
        await asyncio.sleep(0.05)
    assert shown[f'sd_jobs_ended_total{{{labels},state="succeeded"}}'] == 1
    assert shown[f"sd_job_queue_seconds_count{{{labels}}}"] == shown[f"sd_job_run_seconds_count{{{labels}}}"] == 1
    assert shown[f"sd_jobs_accepted_total{{{labels}}}"] == 2
    following.cancel()


async def test_images_are_deleted_when_their_time_is_over(gateway: Gateway, tmp_path: Path) -> None:
    job = await gateway.submit()
    await gateway.draw()
    housekeeper = Housekeeper(gateway.table, gateway.service.results)
    await housekeeper.discard_expired()
    assert len(list(gateway.store_folder.rglob("*.png"))) == 1
    settings = JobTableSettings(result_retention_seconds=0)
    impatient = JobTable(open_store(f"sqlite:///{tmp_path / 'jobs.sqlite'}", settings))
    await Housekeeper(impatient, gateway.service.results).discard_expired()
    await impatient.close()
    assert list(gateway.store_folder.rglob("*.png")) == []
    assert (await gateway.table.get(None, job["id"])).state is JobState.SUCCEEDED


async def test_the_housekeeper_ends_abandoned_jobs(gateway: Gateway) -> None:
    task = asyncio.create_task(Housekeeper(gateway.table, gateway.service.results).run())
    job = await gateway.submit(timeout_seconds=0.01)
    ended = await gateway.table.wait_for_end(None, job["id"], 10)
    assert ended.state is JobState.EXPIRED
    task.cancel()


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_ALLOWED_HOSTS", "a.example, b.example")
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_STATE_DIR", str(tmp_path))
    settings = GatewaySettings.read()
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.database_url == f"sqlite:///{tmp_path}/jobs.sqlite"
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_BODY_SECONDS", "0")
    with pytest.raises(SettingsError, match="TRITON_DIFFUSERS_GATEWAY_BODY_SECONDS: '0' is invalid"):
        GatewaySettings.read()
