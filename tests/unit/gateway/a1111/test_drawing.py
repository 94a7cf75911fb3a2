"""``txt2img``: fields, replies and errors."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.a1111.calls import INFOTEXT, OPTIONS, PARAMETERS, TXT2IMG, drawn, encoded, posted, refused
from tests.unit.gateway.conftest import Gateway, ended
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.gateway.jobs.job import JobState

pytestmark = pytest.mark.anyio

OWN = {"prompt": "an apple", "return_images": True, "store_images": False}


async def test_a_reply_has_images_the_request_and_all_of_info(gateway: Gateway) -> None:
    await gateway.announce(name="paper")
    images = [encoded(colour=colour) for colour in ("red", "green", "blue", "white")]
    job, reply = await drawn(gateway, TXT2IMG, images, seed=7, batch_size=2, n_iter=2, negative_prompt="blur")
    assert reply.keys() == {"images", "parameters", "info"}
    assert [base64.b64decode(text) for text in reply["images"]] == images
    assert reply["parameters"] == {
        "prompt": "an apple",
        "seed": 7,
        "batch_size": 2,
        "n_iter": 2,
        "negative_prompt": "blur",
    }
    info = reply["info"]
    assert (info["seed"], info["all_seeds"], info["all_subseeds"]) == (7, [7, 8, 9, 10], [7, 8, 9, 10])
    assert (info["prompt"], info["all_prompts"]) == ("an apple", ["an apple"] * 4)
    assert (info["negative_prompt"], info["all_negative_prompts"]) == ("blur", ["blur"] * 4)
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (32, 16, 20, 7.0)
    assert (info["sampler_name"], info["extra_generation_params"]) == ("DPM++ 2M", {"Schedule type": "Karras"})
    assert (info["sd_model_name"], info["sd_model_hash"], info["batch_size"]) == ("paper", "", 2)
    assert info["infotexts"] == [INFOTEXT] * 4
    assert (info["id"], info["interrupted"], info["warnings"], info["is_nsfw"]) == (job.id, False, [], [False] * 4)
    neutral = {"subseed_strength": 0, "restore_faces": False, "seed_resize_from_w": -1, "seed_resize_from_h": -1}
    neutral |= {"sd_vae_name": None, "sd_vae_hash": None, "denoising_strength": None, "index_of_first_image": 0}
    neutral |= {"styles": [], "clip_skip": 1, "is_using_inpainting_conditioning": False}
    assert {name: info[name] for name in neutral} == neutral
    assert info["job_timestamp"].isdecimal()
    assert (job.dialect, job.images, job.request["fields"]["seed"]) == ("a1111", 4, "7")


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({}, {}),
        ({"steps": 9, "cfg_scale": 3, "height": "32"}, {"steps": 9, "cfg_scale": 3.0, "height": 32}),
        ({"sampler_name": "Euler a"}, {"scheduler": "Euler a"}),
        ({"sampler_index": "k_euler"}, {"scheduler": "Euler"}),
        ({"sampler_name": None, "sampler_index": "DDIM"}, {"scheduler": "DDIM"}),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"sampler_name": "DPM++ 2M", "scheduler": "uniform"}, {"scheduler": "DPM++ 2M"}),
        ({"sampler_name": "DPM++ 2M SDE"}, {"scheduler": "DPM++ 2M SDE Exponential"}),
        ({"sampler_name": "Euler", "scheduler": "karras"}, {"scheduler": "Euler Karras"}),
        ({"sampler_name": "DPM++ SDE Karras"}, {"scheduler": "DPM++ SDE Karras"}),
        ({"sampler_name": "default", "scheduler": "default"}, {}),
        ({"sampler_name": "PLMS"}, {"scheduler": "PNDM"}),
        ({"clip_skip": 2}, {"clip_skip": 2}),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, {"clip_skip": 2}),
        ({"override_settings": {"samples_format": "jpg"}}, {"output_format": "jpeg"}),
        ({"override_settings": {"jpeg_quality": 50, "sd_vae": "Automatic"}}, {"output_quality": 50}),
        ({"enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}, {}),
        ({"restore_faces": False, "tiling": False, "eta": 1.0, "s_noise": 1, "styles": []}, {}),
        ({"alwayson_scripts": {"ADetailer": {"args": [False]}, "ControlNet": {"args": []}}}, {}),
        ({"prompt": "a <lora:flat:0.5>"}, {"prompt": "a <lora:flat:0.5>"}),
    ],
)  # fmt: skip
async def test_fields_become_the_contracts(gateway: Gateway, sent: dict[str, Any], fields: dict[str, Any]) -> None:
    job, reply = await drawn(gateway, seed=7, **sent)
    assert job.request["fields"] == {**OWN, "seed": "7", **fields}
    assert reply["info"]["warnings"] == []
    assert job.model == "ensemble"


async def test_a_random_seed_fits_into_numbers_of_javascript(gateway: Gateway) -> None:
    seeds = set()
    for _ in range(3):
        job, reply = await drawn(gateway, seed=-1)
        assert reply["info"]["seed"] == int(job.request["fields"]["seed"]) < 2**32
        seeds.add(reply["info"]["seed"])
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("sent", "warning"),
    [
        (
            {"url": "http://127.0.0.1", "auth": ""},
            ["url is unknown and was ignored", "auth is unknown and was ignored"],
        ),
        ({"styles": ["none such"]}, ["styles: 'none such' is unknown and was ignored"]),
        ({"override_settings": {"eta_noise": 1}}, ["override_settings.eta_noise has no effect here"]),
    ],
)
async def test_what_is_ignored_is_told(gateway: Gateway, sent: dict[str, Any], warning: list[str]) -> None:
    _, reply = await drawn(gateway, **sent)
    assert reply["info"]["warnings"] == warning


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"enable_hr": True}, "enable_hr: True is invalid: this server does not support it; ask for the size itself"),
        ({"restore_faces": True}, "restore_faces: True is invalid: this server does not support it"),
        ({"tiling": True}, "tiling: True is invalid: "),
        ({"subseed_strength": 0.5}, "subseed_strength: 0.5 is invalid: this server does not support it; use "),
        ({"script_name": "X/Y/Z plot"}, "script_name: 'X/Y/Z plot' is invalid: "),
        ({"refiner_checkpoint": "x"}, "refiner_checkpoint: 'x' is invalid: "),
        ({"infotext": "a\nSteps: 2"}, "infotext: 'a\\nSteps: 2' is invalid: "),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, "alwayson_scripts.ADetailer: "),
        ({"alwayson_scripts": []}, "alwayson_scripts: [] is invalid: must be a JSON object"),
        ({"steps": 0}, "steps: 0 is invalid: must be a whole number of at least 1"),
        ({"steps": 900}, "steps: 900 is invalid: must be between 1 and 150"),
        ({"cfg_scale": 0.5}, "cfg_scale: 0.5 is invalid: must be a number of at least 1"),
        ({"cfg_scale": "x"}, "cfg_scale: 'x' is invalid: must be a number of at least 1"),
        ({"width": 9000}, "width: 9000 is invalid: must be between 16 and 2048"),
        ({"batch_size": 4, "n_iter": 3}, "batch_size × n_iter: 12 is invalid: must be between 1 and 8"),
        ({"seed": -2}, "seed: -2 is invalid: must be a whole number between -1 and "),
        ({"scheduler": "beta", "sampler_name": "Euler"}, "scheduler: 'beta' is invalid: must be one of: Automatic, "),
        ({"scheduler": "karras", "sampler_name": "DDIM"}, "scheduler: 'karras' is invalid: DDIM has no Karras spacing"),
        ({"scheduler": "karras"}, "scheduler: 'karras' is invalid: needs a sampler_name"),
        ({"styles": "x"}, "styles: 'x' is invalid: must be a list of names"),
        ({"prompt": ["a"]}, "prompt: ['a'] is invalid: must be text"),
        ({"override_settings": {"sd_vae": "x.pt"}}, "sd_vae: 'x.pt' is invalid: the model has its own; use Automatic"),
        ({"override_settings": {"samples_format": "gif"}}, "samples_format: 'gif' is invalid: must be one of: png, "),
    ],
)  # fmt: skip
async def test_what_is_unsupported_or_invalid_is_an_error(gateway: Gateway, sent: dict[str, Any], message: str) -> None:
    assert (await refused(gateway, **sent)).startswith(message)


async def test_texts_that_are_not_unicode_are_repeated(gateway: Gateway) -> None:
    """JSON can escape half of a character, which UTF-8 cannot encode."""
    broken = "\ud800"
    body = json.dumps({"prompt": "an apple", broken: broken}).encode()
    waiting = asyncio.create_task(gateway.client.post(TXT2IMG, content=body))
    await gateway.draw([encoded()], parameters=PARAMETERS, warnings=[])
    reply = (await ended(waiting)).json()
    assert reply["parameters"][broken] == broken
    assert json.loads(reply["info"])["warnings"] == [f"{broken} is unknown and was ignored"]
    body = json.dumps({"alwayson_scripts": {broken: {"args": [True]}}}).encode()
    refusal = await gateway.client.post(TXT2IMG, content=body)
    assert (refusal.status_code, broken in refusal.json()["detail"]) == (422, True)
    body = json.dumps({broken: broken}).encode()
    assert (await gateway.client.post(OPTIONS, content=body)).status_code == 200
    assert (await gateway.client.get(OPTIONS)).json()[broken] == broken


async def test_an_unknown_sampler_is_not_found(gateway: Gateway) -> None:
    assert (await refused(gateway, status=404, sampler_name="nope")).startswith("sampler_name: 'nope' is invalid: ")


async def test_images_are_left_out_where_they_are_not_wanted(gateway: Gateway) -> None:
    _, reply = await drawn(gateway, send_images=False)
    assert reply["images"] == []
    assert reply["info"]["infotexts"] == [INFOTEXT]


async def test_an_error_of_the_job_has_the_web_uis_form(gateway: Gateway) -> None:
    waiting = posted(gateway, prompt="<lora:nope:1>")
    await gateway.fail("prompt: LoRA 'nope' not found", 460)
    reply = await ended(waiting)
    text = "prompt: LoRA 'nope' not found"
    assert (reply.status_code, reply.json()) == (
        422,
        {"error": "HTTPException", "detail": text, "body": "", "errors": text},
    )


async def test_an_interrupted_request_is_answered_without_images(gateway: Gateway) -> None:
    await gateway.announce(defaults=ModelDefaults(side=128))
    waiting = posted(gateway, seed=7, steps=9, batch_size=2)
    claim = await gateway.claim()
    assert (await gateway.client.post("/sdapi/v1/interrupt")).json() == {}
    await gateway.table.finish_cancelled(claim.lease)
    reply = await ended(waiting)
    assert (reply.status_code, reply.json()["images"]) == (200, [])
    assert '"interrupted": true' in reply.json()["info"]
    assert '"width": 128' in reply.json()["info"]
    assert '"steps": 9' in reply.json()["info"]


async def test_equal_requests_are_jobs_of_their_own_unless_they_have_one_key(gateway: Gateway) -> None:
    headers = {"idempotency-key": "k"}
    waiting = [posted(gateway) for _ in range(2)]
    waiting += [
        asyncio.create_task(gateway.client.post(TXT2IMG, json={"prompt": "a"}, headers=headers)) for _ in range(2)
    ]
    for _ in range(3):
        await gateway.draw([encoded()], parameters=PARAMETERS)
    infos = [(await ended(task)).json()["info"] for task in waiting]
    assert len(set(infos)) == 3


@pytest.mark.parametrize("gateway_settings", [{"styles_file": "styles.csv"}])
async def test_styles_are_those_of_the_operators_file(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "styles.csv").write_text(
        '\ufeffname,prompt,negative_prompt\npaint,"oil painting of {prompt}, thick",photo\nsoft,soft light,\n', "utf-8"
    )
    listed = (await gateway.client.get("/sdapi/v1/prompt-styles")).json()
    assert [style["name"] for style in listed] == ["paint", "soft"]
    job, reply = await drawn(gateway, styles=["paint", "soft"], negative_prompt="blur")
    fields = job.request["fields"]
    assert fields["prompt"] == "oil painting of an apple, thick, soft light"
    assert fields["negative_prompt"] == "blur, photo"
    assert reply["info"]["styles"] == ["paint", "soft"]
    (tmp_path / "styles.csv").write_bytes(b"\xff")
    assert (await gateway.client.get("/sdapi/v1/prompt-styles")).json() == []


async def test_a_checkpoint_of_another_pool_is_drawn_there(gateway: Gateway) -> None:
    await gateway.announce(name="paper")
    await gateway.announce("sd_base", runner="two", pool="other", name="ink")
    titles = [model["title"] for model in (await gateway.client.get("/sdapi/v1/sd-models")).json()]
    assert titles == ["paper", "ink"]
    waiting = posted(gateway, override_settings={"sd_model_checkpoint": "INK.safetensors [abc]"})
    (claim,) = await gateway.table.wait_for_claim("two", "other", ("ensemble",), 1, 30.0)
    await gateway.finish(claim, [encoded()], parameters=PARAMETERS)
    assert '"sd_model_name": "ink"' in (await ended(waiting)).json()["info"]
    # The override was for that request alone.
    assert (await gateway.client.get(OPTIONS)).json()["sd_model_checkpoint"] == "paper"
    unknown = await ended(posted(gateway, override_settings={"sd_model_checkpoint": "oil"}))
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "sd_model_checkpoint: 'oil' is invalid: must be one of: paper, ink",
    )


async def test_overrides_can_stay(gateway: Gateway) -> None:
    await drawn(gateway, override_settings={"CLIP_stop_at_last_layers": 2}, override_settings_restore_afterwards=False)
    job, _ = await drawn(gateway)
    assert job.request["fields"]["clip_skip"] == 2
    assert job.state is JobState.SUCCEEDED
