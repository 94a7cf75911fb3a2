"""Edits and variations of OpenAI's images API: forms with files."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.unit.gateway.conftest import Gateway, ended
from tests.unit.gateway.openai_calls import EDITS, MASK, PICTURE, VARIATIONS, drawn, encoded, error_of, posted, sent

pytestmark = pytest.mark.anyio


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
    link = "https://a.example/b.png"
    for fields in (
        {"image": link},
        {"url": link},
        {"image": [link]},
        {"images": [link]},
        {"images": [{"image_url": link}], "mask": {"image_url": "https://a.example/m.png"}},
    ):
        job, _ = await drawn(gateway, posted(gateway, EDITS, **fields))
        inputs = await gateway.table.inputs(job.id)
        assert inputs["image_link/0"].data == link.encode()
        assert job.request["fields"]["func_name"] == ("inpaint" if "mask" in fields else "i2i")
        assert ("mask_link/0" in inputs) is ("mask" in fields)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"images": [{"image_url": "a"}] * 2}, "images", "images: '2 images' is invalid: this model takes one image"),
        ({"image": ["a", "b", "c"]}, "image", "image: '3 images' is invalid: this model takes one image"),
        ({"images": [{"file_id": "f"}]}, "images[0].file_id", "images[0].file_id: 'f' is invalid: there are no files"),
        (
            {"images": [{"odd": 1}]},
            "images[0].image_url",
            "images[0].image_url: None is invalid: must be a URL, a data",
        ),
        ({"image": "a", "images": ["b"]}, "images", "images: ['b'] is invalid: image is the same field; send one"),
        (
            {"image": "a", "mask": 7},
            "mask",
            "mask: 7 is invalid: must be a URL, a data URL or an object with image_url",
        ),
        ({"images": ["ftp://a"], "mask": []}, "mask", "mask: '0 images' is invalid: this model takes one image"),
    ],
)
async def test_images_that_are_none_or_several_are_errors(
    gateway: Gateway, fields: dict[str, Any], param: str, message: str
) -> None:
    error = await error_of(gateway, posted(gateway, EDITS, **fields))
    assert (error["param"], error["message"][: len(message)]) == (param, message)


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
