"""Lists, options, and the routes that work on images without a model."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from PIL import Image

from tests.unit.conftest import ROOT
from tests.unit.gateway.a1111.calls import INFOTEXT, OPTIONS, encoded, image_of, refused, text_of
from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import Caller
from triton_diffusers.gateway.dialects.a1111.dialect import DIALECT

pytestmark = pytest.mark.anyio

API = "/sdapi/v1"


async def got(gateway: Gateway, name: str) -> Any:
    reply = await gateway.client.get(name if name.startswith("/controlnet") else f"{API}/{name}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def post(gateway: Gateway, name: str, document: Any) -> Any:
    reply = await gateway.client.post(f"{API}/{name}", json=document)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_the_checkpoint_and_its_adapters_are_listed(gateway: Gateway) -> None:
    assert await got(gateway, "sd-models") == await got(gateway, "loras") == []
    await gateway.announce(name="paper", loras=("lora/flat.safetensors", "lora/x/deep"), embeddings=("word",))
    (model,) = await got(gateway, "sd-models")
    assert model == {
        "title": "paper",
        "model_name": "paper",
        "hash": None,
        "sha256": None,
        "filename": "paper",
        "config": None,
    }
    assert await got(gateway, "loras") == [
        {"name": "flat", "alias": "flat", "path": "lora/flat.safetensors", "metadata": {}},
        {"name": "deep", "alias": "deep", "path": "lora/x/deep", "metadata": {}},
    ]
    embeddings = await got(gateway, "embeddings")
    assert (list(embeddings["loaded"]), embeddings["skipped"]) == (["word"], {})


async def test_samplers_and_schedulers_are_listed(gateway: Gateway) -> None:
    samplers = {each["name"]: each for each in await got(gateway, "samplers")}
    assert samplers["Euler a"] == {"name": "Euler a", "aliases": ["k_euler_a", "k_euler_ancestral"], "options": {}}
    assert samplers["DPM++ 2M"]["options"] == {"scheduler": "karras"}
    assert samplers["DPM++ 2M"]["aliases"] == ["k_dpmpp_2m"]
    assert not any("Karras" in name for name in samplers)
    schedulers = await got(gateway, "schedulers")
    assert [each["name"] for each in schedulers] == ["automatic", "uniform", "karras", "exponential"]
    assert schedulers[2]["default_rho"] == 7.0
    assert all(each.keys() == schedulers[0].keys() for each in schedulers)


async def test_what_a_server_lacks_is_an_empty_list(gateway: Gateway) -> None:
    names = ("sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "latent-upscale-modes", "script-info")
    for name in (*names, "extensions", "prompt-styles"):
        assert await got(gateway, name) == [], name
    assert [each["name"] for each in await got(gateway, "upscalers")] == ["None", "Lanczos", "Nearest"]
    assert await got(gateway, "cmd-flags")
    scripts = await got(gateway, "scripts")
    assert scripts["txt2img"] == scripts["img2img"] == ["controlnet", "controlnet m2m"]
    memory = await got(gateway, "memory")
    assert memory["ram"]["total"] > memory["ram"]["used"] > 0
    for name in ("refresh-checkpoints", "refresh-vae", "refresh-loras"):
        assert await post(gateway, name, {}) is None
    assert (await gateway.client.get(f"{API}/interrogate")).status_code == 404
    # It would look like another program's.
    assert (await gateway.client.get("/system_stats")).status_code == 404


async def test_controlnets_are_listed(gateway: Gateway) -> None:
    await gateway.announce(controlnets=("controlnet", "controlnets/canny-1"))
    assert await got(gateway, "/controlnet/model_list") == {"model_list": ["controlnet", "controlnets/canny-1"]}
    modules = await got(gateway, "/controlnet/module_list")
    assert modules["module_list"][:2] == ["none", "canny"]
    assert modules["module_detail"].keys() == set(modules["module_list"])
    types = (await got(gateway, "/controlnet/control_types"))["control_types"]
    assert types["Canny"] == {
        "module_list": ["none", "canny"],
        "model_list": ["None", "controlnets/canny-1"],
        "default_option": "canny",
        "default_model": "controlnets/canny-1",
    }
    assert types["Depth"]["default_model"] == "None"
    assert await got(gateway, "/controlnet/version") == {"version": 3}
    assert await got(gateway, "/controlnet/settings") == {"control_net_unit_count": 4}


async def test_options_are_kept_for_each_caller(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.announce(name="paper")
    before = await got(gateway, "options")
    assert before["sd_model_checkpoint"] == "paper"
    assert (before["samples_format"], before["sd_vae"], before["CLIP_stop_at_last_layers"]) == ("png", "Automatic", 1)
    assert "forge_preset" not in before
    changed = {**before, "CLIP_stop_at_last_layers": 2, "my_own": [1], "sd_model_checkpoint": "paper"}
    assert await post(gateway, "options", changed) is None
    assert await got(gateway, "options") == changed

    async def another(self: Authenticator, connection: Any) -> Caller:
        return Caller(owner="bob", user="bob")

    monkeypatch.setattr(Authenticator, "authenticate", another)
    assert await got(gateway, "options") == before


@pytest.mark.parametrize(
    ("option", "status", "message"),
    [
        ({"sd_model_checkpoint": "nope"}, 404, "sd_model_checkpoint: 'nope' is invalid: must be one of: no runner is "),
        ({"CLIP_stop_at_last_layers": 99}, 422, "CLIP_stop_at_last_layers: 99 is invalid: must be a whole "),
        ({"jpeg_quality": 0}, 422, "jpeg_quality: 0 is invalid: must be a whole number between 1 and 100"),
    ],
)  # fmt: skip
async def test_invalid_options_are_refused(gateway: Gateway, option: dict[str, Any], status: int, message: str) -> None:
    assert (await refused(gateway, OPTIONS, status, **option)).startswith(message)
    assert not (await got(gateway, "options"))["sd_model_checkpoint"]


async def test_a_checkpoint_that_is_gone_gives_way_to_the_one_that_is_served(gateway: Gateway) -> None:
    await gateway.announce(name="paper")
    await post(gateway, "options", {"sd_model_checkpoint": "paper"})
    await gateway.announce(name="ink")
    assert (await got(gateway, "options"))["sd_model_checkpoint"] == "ink"


async def test_the_parameters_of_an_image_are_read(gateway: Gateway) -> None:
    info = await post(gateway, "png-info", {"image": f"data:image/png;base64,{text_of(encoded())}"})
    assert (info["info"], info["items"]) == (INFOTEXT, {})
    assert info["parameters"]["Sampler"] == "DPM++ 2M Karras"
    assert info["parameters"]["Prompt"] == "an apple"
    without = await post(gateway, "png-info", {"image": text_of(Image.new("RGB", (8, 8)))})
    assert without == {"info": "", "items": {}, "parameters": {}}
    detail = await refused(gateway, f"{API}/png-info", image=text_of(b"no image"))
    assert detail.startswith("image: '8 bytes' is invalid: must be an image: ")


async def test_images_are_resized(gateway: Gateway) -> None:
    image = text_of(Image.new("RGB", (20, 10), "red"))
    single = f"{API}/extra-single-image"
    for fields, size in (
        ({"upscaler_1": "Lanczos", "upscaling_resize": 2.5}, (50, 25)),
        ({"upscaler_1": "nearest", "resize_mode": 1, "upscaling_resize_w": 30, "upscaling_resize_h": 40}, (30, 40)),
        ({}, (20, 10)),
    ):
        reply = await post(gateway, "extra-single-image", {"image": image, **fields})
        assert (image_of(reply["image"]).size, reply["html_info"]) == (size, "")
    batch = {"imageList": [{"data": image, "name": "a"}] * 2, "upscaler_1": "Lanczos"}
    assert [image_of(each).size for each in (await post(gateway, "extra-batch-images", batch))["images"]] == [
        (40, 20)
    ] * 2
    for wrong, message in (
        ({"upscaler_1": "ESRGAN_4x"}, "upscaler_1: 'ESRGAN_4x' is invalid: must be one of: None, Lanczos, Nearest"),
        ({"gfpgan_visibility": 1}, "gfpgan_visibility: 1 is invalid: this server does not support it"),
        (
            {"upscaler_1": "Lanczos", "upscaling_resize": 99},
            "upscaling_resize: 99 is invalid: must be a number ",
        ),
        (
            {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 8000, "upscaling_resize_h": 8000},
            "upscaling_resize_w / upscaling_resize_h: '8000×8000' is invalid: at most 16000000 pixels",
        ),
        ({"image": ""}, "image: '' is invalid: "),
    ):
        assert (await refused(gateway, single, **{"image": image, **wrong})).startswith(message)


async def test_a_batch_of_resized_images_is_bounded(gateway: Gateway) -> None:
    images = [{"data": text_of(Image.new("RGB", (1000, 1000)))}] * 5
    fields = {"upscaler_1": "Nearest", "upscaling_resize": 4, "imageList": images}
    detail = await refused(gateway, f"{API}/extra-batch-images", **fields)
    assert detail == "imageList: '5 images' is invalid: at most 64000000 pixels together, resized"


async def test_several_images_are_worked_on_at_once(gateway: Gateway) -> None:
    document = {"image": text_of(Image.new("RGB", (40, 40))), "upscaler_1": "Lanczos"}
    replies = await asyncio.gather(*(post(gateway, "extra-single-image", document) for _ in range(6)))
    assert {image_of(reply["image"]).size for reply in replies} == {(80, 80)}


def test_the_documentation_has_every_route() -> None:
    text = (ROOT / "docs" / "a1111.md").read_text()
    names = {str(route.path).rpartition("/")[2] for route in iter_route_contexts(DIALECT.router.routes)}
    assert len(names) > 30
    assert not [name for name in sorted(names) if not re.search(rf"`[^`]*\b{re.escape(name)}`", text)]
