"""``img2img``: input images, masks and ControlNets."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.gateway.a1111.calls import (
    IMG2IMG,
    INFOTEXT,
    PARAMETERS,
    TXT2IMG,
    drawn,
    encoded,
    image_of,
    posted,
    refused,
    text_of,
)
from tests.unit.gateway.conftest import Gateway, ended
from triton_diffusers.gateway.jobs.job import Job

pytestmark = pytest.mark.anyio

IMAGE = text_of(Image.new("RGB", (96, 64), "blue"))
UNIT = {"model": "blocks", "module": "canny", "image": IMAGE}


def masked(*box: int, size: tuple[int, int] = (96, 64)) -> str:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return text_of(mask)


async def inputs(gateway: Gateway, job: Job) -> dict[str, bytes]:
    return {name: blob.data for name, blob in (await gateway.table.inputs(job.id)).items()}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (IMAGE, "image_base64/0"),
        (f"data:image/png;base64,{IMAGE}", "image_base64/0"),
        ("https://a.example/b.png", "image_link/0"),
    ],
)
async def test_an_image_reaches_the_model_as_it_was_sent(gateway: Gateway, image: str, name: str) -> None:
    job, reply = await drawn(gateway, IMG2IMG, init_images=[image], seed=7, resize_mode=1)
    fields = job.request["fields"]
    assert (fields["func_name"], fields["denoising_strength"], fields["resize_mode"]) == ("i2i", 0.75, 1)
    assert await inputs(gateway, job) == {name: image.encode()}
    assert reply["parameters"]["init_images"] is None
    assert reply["info"]["denoising_strength"] == 0.75


async def test_the_image_is_repeated_if_it_is_asked_for(gateway: Gateway) -> None:
    _, reply = await drawn(gateway, IMG2IMG, init_images=[IMAGE], include_init_images=True)
    assert reply["parameters"]["init_images"] == [IMAGE]


async def test_a_whole_image_is_inpainted(gateway: Gateway) -> None:
    job, _ = await drawn(
        gateway,
        IMG2IMG,
        init_images=[IMAGE],
        mask=masked(0, 0, 48, 64),
        inpainting_fill=1,
        inpaint_full_res=False,
        inpainting_mask_invert=1,
        mask_blur=0,
    )
    assert job.request["fields"]["func_name"] == "inpaint"
    sent = await inputs(gateway, job)
    assert opened(sent["image/0"]).size == (96, 64)
    mask = np.asarray(opened(sent["mask/0"]))
    assert (mask[:, :48].max(), mask[:, 48:].min()) == (0, 255)


async def test_the_masked_part_is_drawn_larger_and_pasted_back(gateway: Gateway) -> None:
    images = [encoded(64, 64, "red")]
    job, reply = await drawn(
        gateway, IMG2IMG, images, init_images=[IMAGE], mask=masked(40, 20, 50, 30), width=64, height=64, mask_blur=0,
        inpaint_full_res_padding=8, inpainting_fill=1,
    )  # fmt: skip
    sent = await inputs(gateway, job)
    assert opened(sent["image/0"]).size == opened(sent["mask/0"]).size == (26, 26)
    assert job.request["fields"]["keep_unmasked"] is False
    whole = image_of(reply["images"][0])
    pixels = np.asarray(whole)
    assert pixels.shape == (64, 96, 3)
    assert (pixels[20:30, 40:50] == (255, 0, 0)).all()
    pixels = pixels.copy()
    pixels[20:30, 40:50] = (0, 0, 255)
    assert (pixels == (0, 0, 255)).all()
    assert whole.info["parameters"] == INFOTEXT
    assert reply["info"]["infotexts"] == [INFOTEXT]


async def test_the_masked_part_is_pasted_into_a_jpeg(gateway: Gateway) -> None:
    _, reply = await drawn(
        gateway, IMG2IMG, [encoded(64, 64, kind="JPEG")], init_images=[IMAGE], mask=masked(0, 0, 9, 9),
        override_settings={"samples_format": "jpg"},
    )  # fmt: skip
    assert (image_of(reply["images"][0]).format, image_of(reply["images"][0]).size) == ("JPEG", (96, 64))


async def test_the_masked_part_can_be_filled_with_the_colours_around_it(gateway: Gateway) -> None:
    image = Image.new("RGB", (96, 64), "blue")
    image.paste("red", (40, 20, 60, 40))
    fields = {"init_images": [text_of(image)], "mask": masked(38, 18, 62, 42), "inpaint_full_res": False}
    job, _ = await drawn(gateway, IMG2IMG, mask_blur=0, inpainting_fill=0, **fields)
    red, _, blue = np.asarray(opened((await inputs(gateway, job))["image/0"])).transpose(2, 0, 1).astype(int)
    assert blue[30, 50] > 200
    assert red.max() < 40


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"init_images": [IMAGE, IMAGE]}, "init_images: '2 images' is invalid: this server does not support "),
        ({"init_images": "x"}, "init_images: 'x' is invalid: must be a list of images"),
        ({"init_images": ["!"]}, "init_images: '!' is invalid: "),
        ({"init_images": [IMAGE], "resize_mode": 3}, "resize_mode: 3 is invalid: this server does not support it"),
        ({"init_images": [IMAGE], "denoising_strength": 2}, "denoising_strength: 2 is invalid: must be a number "),
        ({"init_images": [IMAGE], "mask": "!"}, "mask: '!' is invalid: "),
        ({"init_images": [IMAGE], "mask": IMAGE[:80]}, "mask: "),
        ({"init_images": [IMAGE], "mask": masked(0, 0, 0, 0)}, "mask: 'a black image' is invalid: must have a white "),
        ({"init_images": [IMAGE], "mask": IMAGE, "inpainting_fill": 2}, "inpainting_fill: 2 is invalid: "),
        ({"init_images": ["https://a.example/b"], "mask": IMAGE}, "init_images: 'https://a.example/b' is invalid: "),
        ({"init_images": [IMAGE], "initial_noise_multiplier": 0.5}, "initial_noise_multiplier: 0.5 is invalid: "),
    ],
)  # fmt: skip
async def test_invalid_images_are_errors(gateway: Gateway, sent: dict[str, Any], message: str) -> None:
    assert (await refused(gateway, IMG2IMG, **sent)).startswith(message)


async def test_the_gateway_itself_decodes_no_huge_images(gateway: Gateway) -> None:
    huge = text_of(Image.new("1", (5000, 3500)))
    message = await refused(gateway, IMG2IMG, init_images=[huge], mask=masked(0, 0, 9, 9))
    assert message == "init_images: '5000×3500' is invalid: at most 16000000 pixels"
    job, _ = await drawn(gateway, IMG2IMG, init_images=[huge])  # the model's own limit is another
    assert job.request["fields"]["func_name"] == "i2i"


async def test_a_missing_image_is_not_found(gateway: Gateway) -> None:
    assert "Init image not found" in await refused(gateway, IMG2IMG, 404)


async def test_units_become_controlnets(gateway: Gateway) -> None:
    await gateway.announce(controlnets=("controlnet", "controlnets/blocks"))
    other = {"model": "ControlNet [0123abcd]", "image": {"image": IMAGE, "mask": ""}, "weight": 0.5}
    other |= {"guidance_start": 0.1, "guidance_end": 0.9, "control_mode": 0, "resize_mode": "Crop and Resize"}
    units = [UNIT, other, {"enabled": False, "model": "x"}]
    waiting = posted(gateway, alwayson_scripts={"ControlNet": {"args": units}})
    job = await gateway.draw(
        [encoded()], parameters=PARAMETERS, control_images_base64=[text_of(encoded(8, 8)), text_of(encoded(9, 9))]
    )
    reply = (await ended(waiting)).json()
    assert [image_of(text).size for text in reply["images"]] == [(32, 16), (8, 8), (9, 9)]
    fields = job.request["fields"]
    assert job.model == "ensemble_controlnet"
    assert fields["controlnet_path"] == ["controlnets/blocks", "controlnet"]
    assert fields["process_func"] == ["canny", "none"]
    assert (fields["control_scale"], fields["control_start"], fields["control_end"]) == ([1, 0.5], [0, 0.1], [1, 0.9])
    assert (fields["resize_mode"], fields["return_control_image"]) == (1, True)
    assert await inputs(gateway, job) == {f"control_image_base64/{number}": IMAGE.encode() for number in range(2)}


async def test_a_unit_without_an_image_follows_the_init_image(gateway: Gateway) -> None:
    scripts = {"controlnet": {"args": [{"model": "blocks", "save_detected_map": False}]}}
    job, _ = await drawn(gateway, IMG2IMG, init_images=[IMAGE], alwayson_scripts=scripts)
    assert set(await inputs(gateway, job)) == {"image_base64/0", "control_image_base64/0"}
    assert "return_control_image" not in job.request["fields"]
    job, _ = await drawn(gateway, IMG2IMG, init_images=[IMAGE], mask=masked(0, 0, 9, 9), alwayson_scripts=scripts)
    assert set(await inputs(gateway, job)) == {"image/0", "mask/0"}
    assert job.request["fields"]["controlnet_path"] == ["blocks"]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({"model": "None"}, ".args[0].model: 'None' is invalid: a unit needs a model; known: none"),
        ({"module": "shuffle"}, ".args[0].module: 'shuffle' is invalid: must be one of: canny, "),
        ({"image": None}, ".args[0].image: '' is invalid: a unit needs an image"),
        ({"mask": IMAGE}, ".args[0].mask: '…' is invalid: this server does not support it"),
        ({"control_mode": 2}, ".args[0].control_mode: 2 is invalid: this server does not support it"),
        ({"resize_mode": "x"}, ".args[0].resize_mode: 'x' is invalid: "),
        ({"weight": 11}, ".weight: 11.0 is invalid: must be between 0.0 and 10.0"),
        ({"guidance_start": 0.9, "guidance_end": 0.1}, ".guidance_start / guidance_end: '0.9 to 0.1' is invalid: "),
        ({"image": "!"}, ".image: '!' is invalid: "),
    ],
)
async def test_invalid_units_are_errors(gateway: Gateway, unit: dict[str, Any], message: str) -> None:
    scripts = {"ControlNet": {"args": [{**UNIT, **unit}]}}
    assert (await refused(gateway, alwayson_scripts=scripts)).startswith(f"alwayson_scripts.ControlNet{message}")


async def test_options_of_units_without_effect_are_told(gateway: Gateway) -> None:
    scripts = {"ControlNet": {"args": [{**UNIT, "threshold_a": 9, "pixel_perfect": True, "odd": 1}]}}
    _, reply = await drawn(gateway, TXT2IMG, alwayson_scripts=scripts)
    first = "alwayson_scripts.ControlNet.args[0]"
    assert reply["info"]["warnings"] == [
        f"{first}.threshold_a has no effect here",
        f"{first}.odd is unknown and was ignored",
    ]


async def test_control_images_are_made_without_drawing(gateway: Gateway) -> None:
    path = "/controlnet/detect"
    document = {"controlnet_module": "softedge_hed", "controlnet_input_images": [IMAGE]}
    none = await ended(asyncio.create_task(gateway.client.post(path, json=document)))
    assert (none.status_code, "no ControlNets" in none.json()["detail"]) == (422, True)
    await gateway.announce(controlnets=("controlnet",))
    waiting = asyncio.create_task(gateway.client.post(path, json=document))
    made = encoded(96, 64)
    job = await gateway.draw([encoded()], parameters=PARAMETERS, control_images_base64=[text_of(made)])
    assert (await ended(waiting)).json() == {"images": [text_of(made)], "info": "Success"}
    fields = job.request["fields"]
    assert (fields["process_func"], fields["denoising_strength"], fields["width"]) == (["hed"], 0.0, 96)
    many = {**document, "controlnet_input_images": [IMAGE] * 101}
    refused = await gateway.client.post(path, json=many)
    assert refused.json()["detail"] == "controlnet_input_images: '101 images' is invalid: at most 100"
