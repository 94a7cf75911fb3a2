"""OpenAI's images API, as its clients use it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.unit.gateway.asgi import Call
from tests.unit.gateway.conftest import Gateway, ended, report
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.dialects.openai import stream
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import Blob, Job, JobState, Progress

pytestmark = pytest.mark.anyio

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
    assert (reply["usage"]["total_tokens"], reply["usage"]["megapixel_steps"]) == (0, job.work)
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


async def test_an_edit_draws_the_transparent_parts_of_its_mask(gateway: Gateway) -> None:
    files = (("image", PICTURE), ("mask", MASK))
    job, _ = await drawn(gateway, sent(gateway, EDITS, files, prompt="a hat", n="1", strength="0.9", steps="12"))
    fields = job.request["fields"]
    assert (fields["func_name"], fields["mask_channel"], fields["denoising_strength"]) == ("inpaint", "alpha", 0.9)
    assert (fields["width"], fields["height"], fields["steps"]) == (96, 64, 12)
    inputs = await gateway.table.inputs(job.id)
    assert {name: blob.data for name, blob in inputs.items()} == {"image/0": PICTURE, "mask/0": MASK}


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_an_edit_without_a_mask_changes_the_whole_image(gateway: Gateway, name: str) -> None:
    job, _ = await drawn(gateway, sent(gateway, files=((name, PICTURE),), prompt="a hat", size="64x64"))
    fields = job.request["fields"]
    assert (fields["func_name"], fields["resize_mode"], fields["width"]) == ("i2i", 1, 64)
    assert (await gateway.table.inputs(job.id))["image/0"].data == PICTURE


async def test_a_variation_has_no_prompt(gateway: Gateway) -> None:
    job, _ = await drawn(gateway, sent(gateway, VARIATIONS), prompt="")
    assert (job.request["fields"]["func_name"], job.request["fields"].get("prompt", "")) == ("i2i", "")


async def test_an_image_by_link_is_fetched_by_the_model(gateway: Gateway) -> None:
    for fields in ({"image": "https://a.example/b.png"}, {"url": "https://a.example/b.png"}):
        job, _ = await drawn(gateway, posted(gateway, EDITS, **fields))
        assert (await gateway.table.inputs(job.id))["image_link/0"].data == b"https://a.example/b.png"


async def test_an_own_size_is_within_the_limits_and_upright(gateway: Gateway) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(120, 80, "JPEG", exif=exif)
    for image, size in ((turned, (80, 120)), (encoded(4000, 1000), (2048, 512))):
        job, _ = await drawn(gateway, sent(gateway, files=(("image", image),), prompt="a hat"))
        assert (job.request["fields"]["width"], job.request["fields"]["height"]) == size


async def test_control_images_are_uploaded(gateway: Gateway) -> None:
    files = (("image", PICTURE), ("control_image[]", PICTURE), ("control_image[]", MASK))
    texts = {"prompt": "a hat", "controlnet_path[]": ["a", "b"], "control_scale[]": ["1", "0.5"]}
    job, _ = await drawn(gateway, sent(gateway, files=files, **texts))
    assert job.model == "ensemble_controlnet"
    assert (job.request["fields"]["controlnet_path"], job.request["fields"]["control_scale"]) == (["a", "b"], [1, 0.5])
    inputs = await gateway.table.inputs(job.id)
    assert [inputs[f"control_image/{number}"].data for number in (0, 1)] == [PICTURE, MASK]


async def test_members_of_an_object_come_in_brackets(gateway: Gateway) -> None:
    texts = {"prompt": "a hat", "lora[path]": "a.safetensors", "lora[scale]": "0.5"}
    job, _ = await drawn(gateway, sent(gateway, **texts))
    assert (job.request["fields"]["lora_path"], job.request["fields"]["lora_attn"]) == (["a.safetensors"], [0.5])


@pytest.mark.parametrize(
    ("path", "files", "texts", "param", "message"),
    [
        (EDITS, (), {"prompt": "a"}, "image", "image: None is invalid: the field is required"),
        (EDITS, (("image", PICTURE),), {}, "prompt", "prompt: None is invalid: the field is required"),
        (EDITS, (("image", PICTURE),) * 2, {"prompt": "a"}, "image", "image: '2 files' is invalid: this model takes"),
        (EDITS, (("photo", PICTURE),), {"prompt": "a"}, "photo", "photo: 'photo.png' is invalid: files are taken as"),
        (EDITS, (("image", PICTURE),), {"prompt": "a", "n": "x"}, "n", "n: 'x' is invalid: must be a whole number"),
        (EDITS, (("image", PICTURE),), {"prompt": "a", "strength": "2"}, "strength", "strength: '2' is invalid: must "),
        (EDITS, (("image", PICTURE),), {"prompt": "a", "stream": "x"}, "stream", "stream: 'x' is invalid: must be "),
        (EDITS, (("image", encoded(2000, 10)),), {"prompt": "a"}, "image", "image: '2000x10' is invalid: height must"),
        (VARIATIONS, (("image", PICTURE), ("mask", MASK)), {}, "mask", "mask: '…' is invalid: variations take no mask"),
    ],
)
async def test_errors_of_forms(
    gateway: Gateway, path: str, files: Any, texts: dict[str, str], param: str, message: str
) -> None:
    waiting = sent(gateway, path, files, **texts) if files else posted(gateway, path, **texts)
    error = await error_of(gateway, waiting)
    assert (error["param"], error["message"][: len(message)]) == (param, message)


async def test_a_broken_form_is_an_error(gateway: Gateway) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    reply = await gateway.client.post(EDITS, content=b"--a", headers=headers)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


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


async def test_a_repeated_form_is_one_job_whatever_its_boundary(gateway: Gateway) -> None:
    def form(boundary: str, image: bytes) -> asyncio.Task[httpx2.Response]:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'.encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Idempotency-Key": "once"}
        body = head + image + f"\r\n--{boundary}--\r\n".encode()
        return asyncio.create_task(gateway.client.post(VARIATIONS, content=body, headers=headers))

    waiting = [form("one", PICTURE), form("two", PICTURE)]
    await gateway.draw([PICTURE])
    first, second = [(await ended(task)).json()["id"] for task in waiting]
    assert first == second
    assert (await error_of(gateway, form("three", MASK)))["param"] == "Idempotency-Key"


@pytest.mark.parametrize("gateway_settings", [{"services": "dall-e-3=sd_base,org/x=ensemble"}])
async def test_models_are_those_of_the_contract_and_the_services(gateway: Gateway) -> None:
    listed = (await gateway.client.get("/v1/models")).json()
    names = [each["id"] for each in listed["data"]]
    assert (listed["object"], names[-2:], "sd_base" in names) == ("list", ["dall-e-3", "org/x"], True)
    assert (await gateway.client.get("/v1/models/org/x")).json() == listed["data"][-1]
    job, _ = await drawn(gateway, posted(gateway, model="dall-e-3"))
    assert job.model == "sd_base"


async def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    for waiting in (posted(gateway, model="x"), asyncio.create_task(gateway.client.get("/v1/models/x"))):
        error = await error_of(gateway, waiting, 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert error["message"].startswith("model: 'x' is invalid: must be one of: ensemble, ")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/files", 404), ("GET", GENERATIONS, 405)])
async def test_other_paths_have_openais_errors(gateway: Gateway, method: str, path: str, status: int) -> None:
    reply = await gateway.client.request(method, path)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")


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
    await asyncio.wait_for(task, 5)
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
