"""OpenAI's images API: images from JSON, models, errors."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway, ended
from tests.unit.gateway.openai_calls import EDITS, GENERATIONS, PICTURE, drawn, encoded, error_of, posted
from triton_diffusers.gateway.jobs.errors import TableUnavailable

pytestmark = pytest.mark.anyio


async def test_images_come_as_base64(gateway: Gateway) -> None:
    waiting = posted(gateway, seed=7, n=2, size="32x16", quality="high", output_format="jpeg", user="me")
    images = [encoded(32, 16, "JPEG"), encoded(32, 16, "JPEG", quality=10)]
    job = await gateway.draw(images, is_nsfw=[False, True])
    reply = (await ended(waiting)).json()
    assert [base64.b64decode(data["b64_json"]) for data in reply["data"]] == images
    assert [(data["seed"], data["is_nsfw"]) for data in reply["data"]] == [("7", False), ("8", True)]
    assert "revised_prompt" not in reply["data"][0]
    assert (reply["id"], reply["created"], reply["model"]) == (job.id, int(job.ended or 0), "ensemble")
    shown = {"background": "opaque", "output_format": "jpeg", "quality": "high", "size": "32x16"}
    assert {name: reply[name] for name in shown} == shown
    assert reply["warnings"] == ["a warning of the model"]
    assert (reply["usage"]["total_tokens"], reply["usage"]["megapixel_steps"]) == (0, 2.0)
    assert reply["parameters"]["steps"] == 20
    assert (dict(job.tags), job.dialect) == ({"user": "me"}, "openai")


async def test_images_come_by_url(gateway: Gateway) -> None:
    image = encoded(32, 16)
    waiting = posted(gateway, response_format="url")
    await gateway.draw([image])
    reply = (await ended(waiting)).json()
    (data,) = reply["data"]
    assert data.keys() == {"url", "seed", "is_nsfw"}
    assert (await gateway.client.get(data["url"])).content == image
    assert reply["size"] == "32x16"


async def test_a_translated_prompt_is_told(gateway: Gateway) -> None:
    _, reply = await drawn(gateway, posted(gateway, prompt="苹果"), prompt="an apple")
    assert reply["data"][0]["revised_prompt"] == "an apple"


@pytest.mark.parametrize(
    ("sent_fields", "fields"),
    [
        ({"size": "512x256"}, {"width": 512, "height": 256}),
        ({"size": "auto", "quality": "auto", "background": "auto", "moderation": "auto"}, {}),
        ({"quality": "standard", "background": "opaque", "response_format": "b64_json"}, {}),
        ({"quality": "low"}, {"profile": "fast"}),
        ({"quality": "hd"}, {"profile": "exact"}),
        ({"output_compression": 0, "output_format": "webp"}, {"output_quality": 1, "output_format": "webp"}),
        ({"output_compression": 100}, {"output_quality": 100}),
        ({"num_inference_steps": 9, "guidance_scale": 3}, {"steps": 9, "cfg_scale": 3.0}),
        ({"steps": 9, "scheduler": "DDIM", "width": 64}, {"steps": 9, "scheduler": "DDIM", "width": 64}),
        ({"negative_prompt": "blur", "clip_skip": 2}, {"negative_prompt": "blur", "clip_skip": 2}),
        ({"lora": {"path": "a.safetensors", "scale": 1}}, {"lora_path": ["a.safetensors"], "lora_attn": [1.0]}),
        ({"lora_path": ["a", "b"], "lora_attn": [0.5, 1]}, {"lora_path": ["a", "b"], "lora_attn": [0.5, 1.0]}),
        ({"model": None, "size": None, "user": None}, {}),
    ],
)
async def test_fields_become_the_contracts(
    gateway: Gateway, sent_fields: dict[str, Any], fields: dict[str, Any]
) -> None:
    job, reply = await drawn(gateway, posted(gateway, seed=7, **sent_fields))
    own = {"prompt": "an apple", "seed": "7", "return_images": True, "store_images": False}
    assert job.request["fields"] == own | fields
    assert reply["warnings"] == ["a warning of the model"]


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("moderation", "low", "moderation has no effect here; the server's safety checker decides; see safety_action"),
        ("style", "vivid", "style has no effect here; describe the style in the prompt"),
        ("func_name", "i2i", "func_name has no effect here; the path decides"),
        ("use_base64", False, "use_base64 has no effect here; response_format decides"),
        ("stepz", 9, "'stepz' is not a field of this model and was ignored; did you mean steps?"),
    ],
)
async def test_fields_without_effect_are_told(gateway: Gateway, name: str, value: Any, warning: str) -> None:
    job, reply = await drawn(gateway, posted(gateway, **{name: value}))
    assert reply["warnings"] == [warning, "a warning of the model"]
    assert name not in job.request["fields"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"prompt": None}, "prompt", "prompt: None is invalid: the field is required"),
        ({"size": "9000x16"}, "size", "size: '9000x16' is invalid: width must be between 16 and 2048"),
        ({"size": "2048x2048"}, "size", "size: '2048x2048' is invalid: at most "),
        ({"size": "big"}, "size", "size: 'big' is invalid: must be WIDTHxHEIGHT in pixels, such as 512x512, or auto"),
        ({"size": "0x0"}, "size", "size: '0x0' is invalid: width must be between 16 and 2048"),
        ({"size": 512}, "size", "size: 512 is invalid: must be WIDTHxHEIGHT"),
        ({"size": "64x64", "width": 64}, "width", "width: 64 is invalid: size is the same field; send one of them"),
        ({"n": 99}, "n", "n: 99 is invalid: must be between 1 and "),
        ({"n": "two"}, "n", "n: 'two' is invalid: must be a whole number of at most 64 bits"),
        ({"n": True}, "n", "n: True is invalid: must be a whole number of at most 64 bits"),
        ({"steps": 900}, "steps", "steps: 900 is invalid: must be between 1 and 150"),
        ({"num_inference_steps": 900}, "num_inference_steps", "num_inference_steps: 900 is invalid: must be between 1"),
        ({"quality": "ultra"}, "quality", "quality: 'ultra' is invalid: must be one of: auto, standard, low, "),
        ({"quality": ["low"]}, "quality", "quality: ['low'] is invalid: must be one of: auto, "),
        ({"background": "transparent"}, "background", "background: 'transparent' is invalid: this model paints "),
        ({"background": "red"}, "background", "background: 'red' is invalid: must be one of: opaque, auto"),
        ({"output_format": "gif"}, "output_format", "output_format: 'gif' is invalid: must be one of: png, jpeg, webp"),
        ({"output_compression": 101}, "output_compression", "output_compression: 101 is invalid: must be a whole "),
        ({"response_format": "file"}, "response_format", "response_format: 'file' is invalid: must be one of: url, "),
        ({"stream": "yes"}, "stream", "stream: 'yes' is invalid: must be true or false"),
        ({"partial_images": 4}, "partial_images", "partial_images: 4 is invalid: must be a whole number between 0"),
        ({"model": 7}, "model", "model: 7 is invalid: must be text"),
        ({"user": "x" * 257}, "user", "user: 'xxx"),
        ({"lora": "a"}, "lora", "lora: 'a' is invalid: must be an object with a path"),
        ({"image": "https://a.example/b.png"}, "image", "image: 'https://a.example/b.png' is invalid: t2i takes no "),
    ],
)
async def test_errors_name_the_callers_field(
    gateway: Gateway, fields: dict[str, Any], param: str, message: str
) -> None:
    error = await error_of(gateway, posted(gateway, **fields))
    assert error["message"].startswith(message)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_value")
    assert not (await gateway.table.jobs(None)).jobs


async def test_a_body_that_is_not_json_is_an_error(gateway: Gateway) -> None:
    reply = await gateway.client.post(GENERATIONS, content="{")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "body")


@pytest.mark.parametrize(
    ("message", "code", "status", "param", "told"),
    [
        ("steps: 7 is invalid: no", 460, 400, "num_inference_steps", "num_inference_steps: 7 is invalid: no"),
        ("image_link: the host is away", 462, 400, "url", "url: the host is away"),
        ("lora/a does not exist", 460, 400, None, "lora/a does not exist"),
        ("the engine failed", 469, 500, None, "the engine failed"),
    ],
)
async def test_the_error_of_a_job_is_answered(
    gateway: Gateway, message: str, code: int, status: int, param: str | None, told: str
) -> None:
    waiting = posted(gateway, EDITS, url="https://a.example/b.png", num_inference_steps=7)
    await gateway.fail(message, code)
    reply = await ended(waiting)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["message"]) == (status, param, told)
    assert error["type"] == ("server_error" if status == 500 else "invalid_request_error")
    assert reply.headers.get("x-should-retry") == ("false" if status == 500 else None)


async def test_a_cancelled_job_is_not_tried_again(gateway: Gateway) -> None:
    waiting = posted(gateway)
    claim = await gateway.claim()
    await gateway.table.cancel(None, claim.job.id)
    await gateway.table.finish_cancelled(claim.lease)
    reply = await ended(waiting)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (409, "false")
    assert reply.json()["error"]["code"] == "cancelled"


@pytest.mark.parametrize("gateway_settings", [{"max_queued": 1}])
async def test_too_many_jobs_are_a_rate_limit(gateway: Gateway) -> None:
    await gateway.submit()
    reply = await ended(posted(gateway))
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


@pytest.mark.parametrize("path", [GENERATIONS, "/api/jobs", "/api/predict/a"])
async def test_a_database_that_is_away_is_worth_another_try(
    gateway: Gateway, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any) -> None:
        raise TableUnavailable("the database is away")

    monkeypatch.setattr(gateway.table.store, "submit", away)
    reply = await ended(posted(gateway, path))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert "the database is away" in reply.text
    assert "x-should-retry" not in reply.headers


async def test_equal_requests_are_several_jobs_unless_they_have_one_key(gateway: Gateway) -> None:
    waiting = [posted(gateway), posted(gateway)]
    body, headers = {"prompt": "an apple"}, {"Idempotency-Key": "once"}
    waiting += [asyncio.create_task(gateway.client.post(GENERATIONS, json=body, headers=headers)) for _ in range(2)]
    for _ in range(3):
        await gateway.draw([PICTURE])
    ids = [(await ended(task)).json()["id"] for task in waiting]
    assert len(set(ids)) == 3
    assert ids[2] == ids[3]


@pytest.mark.parametrize("gateway_settings", [{"services": "dall-e-3=sd_base,org/x=ensemble"}])
async def test_models_are_those_of_the_contract_and_the_services(gateway: Gateway) -> None:
    await gateway.announce("ensemble", "sd_base")
    await gateway.announce("ensemble_controlnet", runner="two", pool="other")
    listed = (await gateway.client.get("/v1/models")).json()
    names = [each["id"] for each in listed["data"]]
    assert (listed["object"], names) == ("list", ["ensemble", "sd_base", "dall-e-3", "org/x"])
    assert (await gateway.client.get("/v1/models/org/x")).json() == listed["data"][-1]
    job, _ = await drawn(gateway, posted(gateway, model="dall-e-3"))
    assert job.model == "sd_base"


async def test_models_that_no_runner_has_are_not_listed(gateway: Gateway) -> None:
    assert (await gateway.client.get("/v1/models")).json()["data"] == []
    error = await error_of(gateway, asyncio.create_task(gateway.client.get("/v1/models/ensemble")), 404)
    assert error["message"] == "model: 'ensemble' is invalid: no model is ready"
    job, _ = await drawn(gateway, posted(gateway, model="sd_base"))  # it waits for a runner that has it
    assert job.model == "sd_base"


async def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    await gateway.announce()
    for waiting in (posted(gateway, model="x"), asyncio.create_task(gateway.client.get("/v1/models/x"))):
        error = await error_of(gateway, waiting, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert error["message"].startswith("model: 'x' is invalid: must be one of: ensemble, ")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/files", 404), ("GET", GENERATIONS, 405)])
async def test_other_paths_have_openais_errors(gateway: Gateway, method: str, path: str, status: int) -> None:
    reply = await gateway.client.request(method, path)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")
