"""A runner announces its models to gateways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.runner.conftest import FakeTriton, Fleet
from tests.waiting import until_async
from triton_diffusers.api.description import ModelDescription

pytestmark = pytest.mark.anyio


async def test_a_runner_announces_the_models_that_are_ready_until_it_stops(fleet: Fleet, triton: FakeTriton) -> None:
    triton.ready = frozenset(("sd_base",))
    directory = fleet.table.store.directory
    async with fleet.runner(triton):
        await until_async(directory.announcements)
        (announcement,) = directory.announcements()
    assert (announcement.runner, announcement.pool, announcement.models) == ("one", "default", ["ensemble", "sd_base"])
    description = ModelDescription.from_json(announcement.description)
    assert description == await triton.describe("sd_base")
    assert not directory.announcements()


async def test_a_description_that_is_too_large_does_not_end_the_announcements(
    fleet: Fleet, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triton_diffusers.runner.runner._ANNOUNCE_SECONDS", 0.01)
    described = await triton.describe("sd_base")
    too_large = [replace(described, loras=("x" * 5_000_000,))]

    async def describe(model: str) -> ModelDescription:
        return too_large.pop() if too_large else described

    monkeypatch.setattr(triton, "describe", describe)
    async with fleet.runner(triton):
        await until_async(fleet.table.store.directory.announcements)
    assert "the models are not announced: description: '…' is invalid: must have at most 4000000 bytes" in caplog.text
