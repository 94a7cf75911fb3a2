"""Streams of OpenAI's images API, and callers who hang up."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.unit.gateway.asgi import Call
from tests.unit.gateway.conftest import Gateway, ended, report
from tests.unit.gateway.openai_calls import EDITS, GENERATIONS, PICTURE, encoded, error_of, posted
from tests.waiting import WITHIN
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.dialects.openai import stream
from triton_diffusers.gateway.jobs.job import Blob, JobState, Progress

pytestmark = pytest.mark.anyio


def events_of(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        events.append(json.loads(lines["data"]))
        assert lines["event"] == events[-1]["type"]
    return events


@pytest.mark.parametrize(("path", "kind"), [(GENERATIONS, "image_generation"), (EDITS, "image_edit")])
async def test_a_stream_has_previews_and_images(
    gateway: Gateway, path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_LOOK_SECONDS", 0.05)
    image = {"image": "https://a.example/b.png"} if path == EDITS else {}
    waiting = posted(gateway, path, n=2, stream=True, partial_images=2, **image)
    claim = await gateway.claim()
    previews = [encoded(8, 4, "JPEG", quality=quality) for quality in (10, 50, 90)]
    for step, preview in ((1, previews[0]), (6, previews[1]), (7, previews[1]), (9, previews[2])):
        await report(
            gateway, claim, progress=Progress(step=step, steps=10), preview=Blob(data=preview, media_type="image/jpeg")
        )
        await asyncio.sleep(0.3)
    assert (await report(gateway, claim)).previews_wanted == [claim.job.id]
    images = [encoded(32, 16), encoded(16, 32)]
    await gateway.finish(claim, images)
    reply = await ended(waiting)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = events_of(reply.text)
    assert [event["type"] for event in events] == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"] * 2
    assert [base64.b64decode(event["b64_json"]) for event in events] == [*previews[1:], *images]
    assert [event["partial_image_index"] for event in events[:2]] == [0, 1]
    assert [event["size"] for event in events] == ["8x4", "8x4", "32x16", "16x32"]
    assert [event["output_format"] for event in events] == ["jpeg", "jpeg", "png", "png"]
    assert all(event["usage"]["total_tokens"] == 0 for event in events[2:])


async def test_a_stream_without_partial_images_asks_for_no_previews(gateway: Gateway) -> None:
    waiting = posted(gateway, stream=True)
    claim = await gateway.claim()
    assert not (await report(gateway, claim, progress=Progress(step=9, steps=10))).previews_wanted
    await gateway.finish(claim, [PICTURE])
    (event,) = events_of((await ended(waiting)).text)
    assert event["type"] == "image_generation.completed"


async def test_an_error_in_a_stream_is_an_event(gateway: Gateway) -> None:
    waiting = posted(gateway, stream=True, num_inference_steps=7)
    await gateway.fail("steps: 7 is invalid: no", 460)
    (event,) = events_of((await ended(waiting)).text)
    assert (event["type"], event["error"]["param"]) == ("error", "num_inference_steps")


async def test_an_invalid_request_is_not_streamed(gateway: Gateway) -> None:
    error = await error_of(gateway, posted(gateway, stream=True, n=99))
    assert error["param"] == "n"


@pytest.mark.parametrize("gateway_settings", [{"leave_seconds": 0}])
@pytest.mark.parametrize("fields", [{}, {"stream": True, "partial_images": 1}])
async def test_a_caller_who_hangs_up_cancels_the_job(gateway: Gateway, fields: dict[str, Any]) -> None:
    call = Call(create_app(gateway.service))
    scope = {"path": GENERATIONS, "raw_path": b"", "query_string": b"", "scheme": "http", "server": ("a", 1)}
    call.scope |= scope
    call.send(json.dumps({"prompt": "an apple", **fields}).encode())
    task = asyncio.create_task(call.run())
    while not (await gateway.table.jobs(None)).jobs:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    call.hang_up()
    await asyncio.wait_for(task, WITHIN)
    await asyncio.sleep(0.1)
    await gateway.table.sweep()
    (job,) = (await gateway.table.jobs(None)).jobs
    assert job.state is JobState.CANCELLED


@pytest.mark.parametrize("gateway_settings", [{"sync_seconds": 0.1, "leave_seconds": 0}])
async def test_a_stream_that_takes_too_long_ends_with_an_error(gateway: Gateway) -> None:
    (event,) = events_of((await ended(posted(gateway, stream=True))).text)
    assert event["error"]["code"] == "timeout"
    await gateway.table.sweep()
    (job,) = (await gateway.table.jobs(None)).jobs
    assert job.state is JobState.CANCELLED
