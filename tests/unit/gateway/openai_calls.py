"""Requests of OpenAI's images API, and their replies."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx2
from PIL import Image

from tests.unit.gateway.conftest import Gateway, ended
from triton_diffusers.gateway.jobs.job import Job

GENERATIONS, EDITS, VARIATIONS = (f"/v1/images/{name}" for name in ("generations", "edits", "variations"))


def encoded(width: int, height: int, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, kind, **options)
    return buffer.getvalue()


PICTURE = encoded(96, 64)
MASK = encoded(96, 64, "WEBP")


def posted(gateway: Gateway, path: str = GENERATIONS, **fields: Any) -> asyncio.Task[httpx2.Response]:
    body = {name: value for name, value in {"prompt": "an apple", **fields}.items() if value is not None}
    return asyncio.create_task(gateway.client.post(path, json=body))


def sent(
    gateway: Gateway, path: str = EDITS, files: Any = (("image", PICTURE),), **texts: Any
) -> asyncio.Task[httpx2.Response]:
    """Send a form, with each file as its client sends it."""
    named = [(name, (f"{name}.png", data, "image/png")) for name, data in files]
    return asyncio.create_task(gateway.client.post(path, data=texts, files=named))


async def drawn(gateway: Gateway, waiting: asyncio.Task[httpx2.Response], **outputs: Any) -> tuple[Job, dict[str, Any]]:
    """Return the job of a request, after it was drawn, and the reply."""
    claiming = asyncio.create_task(gateway.draw([encoded(32, 16)], **outputs))
    reply = await ended(waiting)
    assert reply.status_code == 200, reply.text
    return await claiming, dict(reply.json())


async def error_of(gateway: Gateway, waiting: asyncio.Task[httpx2.Response], status: int = 400) -> dict[str, Any]:
    reply = await ended(waiting)
    assert reply.status_code == status, reply.text
    assert reply.json().keys() == {"error"}
    return dict(reply.json()["error"])
