"""Models that runners announce, as the gateway uses them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.unit.gateway.conftest import Gateway
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.gateway.fleet import ServedDefaults
from triton_diffusers.gateway.submission import ASSUMED

pytestmark = pytest.mark.anyio


async def test_work_is_estimated_with_the_defaults_of_the_served_model(gateway: Gateway) -> None:
    assumed = (await gateway.submit())["work"]
    assert assumed == pytest.approx(50 * 0.512**2)
    await gateway.announce(defaults=ModelDefaults(side=64, steps=20, guidance_scale=1.0))
    await gateway.service.defaults.refresh(gateway.table)
    assert (await gateway.submit())["work"] == pytest.approx(20 * 0.064**2 / 2)
    assert (await gateway.submit(steps=5, width=100, height=200))["work"] == pytest.approx(5 * 0.02 / 2)
    batch = await gateway.client.post("/api/jobs/batch", json={"jobs": [{"prompt": "a"}]})
    assert batch.json()["jobs"][0]["work"] == pytest.approx(20 * 0.064**2 / 2)


async def test_the_pool_that_requests_go_to_counts(gateway: Gateway) -> None:
    await gateway.announce(defaults=ModelDefaults(side=1024), name="a", runner="a", pool="another")
    await gateway.announce(defaults=ModelDefaults(side=64), name="b")
    await gateway.service.defaults.refresh(gateway.table)
    assert gateway.service.defaults.current.side == 64


async def test_announcements_are_followed_while_the_table_can_be_read(
    gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    defaults = ServedDefaults()
    assert defaults.current == ASSUMED
    await gateway.announce(defaults=ModelDefaults(side=64))
    following = asyncio.create_task(defaults.follow(gateway.table))
    while defaults.current == ASSUMED:
        await asyncio.sleep(0.02)
    following.cancel()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("DROP TABLE runners")
    following = asyncio.create_task(defaults.follow(gateway.table))
    while "the runners' announcements are not read" not in caplog.text:
        assert not following.done()
        await asyncio.sleep(0.02)
    following.cancel()
    assert defaults.current.side == 64
