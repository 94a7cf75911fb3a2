"""Requests of the web UI's API, and their replies."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import httpx2
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.unit.gateway.conftest import Gateway, ended
from triton_diffusers.gateway.jobs.job import Job

TXT2IMG, IMG2IMG, OPTIONS, PROGRESS = (f"/sdapi/v1/{name}" for name in ("txt2img", "img2img", "options", "progress"))
INFOTEXT = "an apple\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 7, Size: 32x16"
PARAMETERS = {"steps": 20, "width": 32, "height": 16, "cfg_scale": 7.0, "scheduler": "DPM++ 2M Karras"}


def encoded(width: int = 32, height: int = 16, colour: str = "red", kind: str = "PNG", text: str = INFOTEXT) -> bytes:
    """Return an image with parameters, as a model makes it."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if kind == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("parameters", text)
    Image.new("RGB", (width, height), colour).save(buffer, kind, **options)
    return buffer.getvalue()


def text_of(image: bytes | Image.Image) -> str:
    """Return an image as base64."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        image = buffer.getvalue()
    return base64.b64encode(image).decode()


def image_of(text: str) -> Image.Image:
    """Return an image of a reply."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def posted(gateway: Gateway, path: str = TXT2IMG, **fields: Any) -> asyncio.Task[httpx2.Response]:
    """Send a request in a task."""
    return asyncio.create_task(gateway.client.post(path, json={"prompt": "an apple", **fields}))


async def drawn(
    gateway: Gateway, path: str = TXT2IMG, images: list[bytes] | None = None, /, **fields: Any
) -> tuple[Job, dict[str, Any]]:
    """Return the job of a request, after it was drawn, and the reply with its ``info`` read."""
    waiting = posted(gateway, path, **fields)
    claiming = asyncio.create_task(gateway.draw(images or [encoded()], parameters=PARAMETERS, warnings=[]))
    reply = await ended(waiting)
    if reply.status_code != 200:
        claiming.cancel()
    assert reply.status_code == 200, reply.text
    document = dict(reply.json())
    document["info"] = json.loads(document["info"])
    return await claiming, document


async def refused(gateway: Gateway, path: str = TXT2IMG, status: int = 422, **fields: Any) -> str:
    """Return the message of a request that must be refused, in the web UI's form."""
    reply = await ended(posted(gateway, path, **fields))
    assert reply.status_code == status, reply.text
    document = reply.json()
    assert document.keys() == {"error", "detail", "body", "errors"}
    assert not (await gateway.table.jobs(None)).jobs
    return str(document["detail"])
