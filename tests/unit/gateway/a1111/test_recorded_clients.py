"""Sequences of calls as Open WebUI and SillyTavern make them; neither is a package that a test could run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from tests.unit.gateway.a1111.calls import PARAMETERS, encoded, image_of
from tests.unit.gateway.conftest import Gateway, ended

pytestmark = pytest.mark.anyio

# Open WebUI sends an empty header where no login is set, SillyTavern one without a value.
NO_LOGIN = {"authorization": ""}
EMPTY_LOGIN = {"authorization": "Basic "}


class Recorded:
    """A client's calls, with its headers."""

    def __init__(self, gateway: Gateway, headers: Mapping[str, str]) -> None:
        self._gateway, self._headers = gateway, headers

    async def get(self, path: str) -> Any:
        """Return the JSON of a reply, which must be good."""
        reply = await self._gateway.client.get(path, headers=self._headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def post(self, path: str, document: Any = None) -> Any:
        """Return the JSON of a reply, which must be good."""
        reply = await self._gateway.client.post(path, json=document, headers=self._headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def draw(self, document: Any) -> dict[str, Any]:
        """Return the reply of ``txt2img``, after its job was drawn."""
        sending = self._gateway.client.post("/sdapi/v1/txt2img", json=document, headers=self._headers)
        waiting: asyncio.Task[httpx2.Response] = asyncio.create_task(sending)
        claim = await self._gateway.claim()
        images = [encoded() for _ in range(claim.job.images)]
        await self._gateway.finish(claim, images, parameters=PARAMETERS)
        return dict((await ended(waiting)).json())


@pytest.fixture
async def served(gateway: Gateway) -> Gateway:
    await gateway.announce(name="paper", loras=("lora/flat.safetensors",))
    return gateway


async def test_open_webui_chooses_a_model_and_draws(served: Gateway) -> None:
    client = Recorded(served, NO_LOGIN)
    options = await client.get("/sdapi/v1/options")
    models = [{"id": model["title"], "name": model["model_name"]} for model in await client.get("/sdapi/v1/sd-models")]
    assert models == [{"id": "paper", "name": "paper"}]
    assert options["sd_model_checkpoint"] == "paper"
    options["sd_model_checkpoint"] = "paper"
    await client.post("/sdapi/v1/options", options)
    document = {"prompt": "a red apple", "batch_size": 2, "width": 512, "height": 512, "steps": 20}
    reply = await client.draw({**document, "negative_prompt": "blur", "sampler_name": "Euler a", "cfg_scale": 7})
    assert [image_of(image.split(",", 1)[-1]).size for image in reply["images"]] == [(32, 16)] * 2
    assert json.loads(reply["info"])["all_prompts"] == ["a red apple"] * 2


async def test_silly_tavern_connects_switches_and_draws(served: Gateway) -> None:
    client = Recorded(served, EMPTY_LOGIN)
    assert "forge_preset" not in await client.get("/sdapi/v1/options")  # the ping; it would be taken for Forge
    assert "Euler a" in [sampler["name"] for sampler in await client.get("/sdapi/v1/samplers")]
    assert "karras" in [scheduler["name"] for scheduler in await client.get("/sdapi/v1/schedulers")]
    assert [model["title"] for model in await client.get("/sdapi/v1/sd-models")] == ["paper"]
    assert await client.get("/sdapi/v1/sd-vae") == []
    upscalers = [upscaler["name"] for upscaler in await client.get("/sdapi/v1/upscalers")]
    upscalers += [mode["name"] for mode in await client.get("/sdapi/v1/latent-upscale-modes")]
    assert upscalers
    await client.post("/sdapi/v1/options", {"sd_model_checkpoint": "paper"})
    progress = await client.get("/sdapi/v1/progress")
    assert (progress["progress"], progress["state"]["job_count"]) == (0, 0)
    document = {
        "url": "http://127.0.0.1:8080",
        "auth": "",
        "prompt": "a red apple <lora:flat:0.5>",
        "negative_prompt": "",
        "sampler_name": "DPM++ 2M",
        "scheduler": "karras",
        "steps": 20,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "seed": 7,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }
    reply = await client.draw(document)
    assert image_of(reply["images"][0]).size == (32, 16)
    job = (await served.table.jobs(None)).jobs[0]
    assert (job.request["fields"]["scheduler"], job.request["fields"]["seed"]) == ("DPM++ 2M Karras", "7")
    assert await client.post("/sdapi/v1/interrupt", {}) == {}
