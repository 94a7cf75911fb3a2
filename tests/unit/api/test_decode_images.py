"""Requests with images, LoRAs and their defaults, and fields that contradict each other."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from tests.unit.api.test_decode import decoded
from triton_diffusers.api.request import (
    DataUrl,
    Expansion,
    Fill,
    FromBase64,
    Function,
    Link,
    LoraChoice,
    ResizeMode,
)
from triton_diffusers.errors import InvalidImage, InvalidRequest
from triton_diffusers.settings import Settings

IMAGE = b"\x89PNG, or whatever it is: not looked at here"


def test_a_request_with_images_and_loras() -> None:
    request = decoded(
        func_name="outpaint",
        image=IMAGE,
        denoising_strength=0.7,
        resize_mode=2,
        keep_unmasked=False,
        width=64,
        height=32,
        expand=[1, 2, 3, 4],
        expand_type="reflect",
        clip_skip=2,
        lora_path=["lora/a.safetensors", "lora/b.bin"],
        lora_attn=[0.5, -1.5],
        save_dir="mine/today",
        store_images=False,
        embed_metadata=False,
    )
    assert request.function is Function.OUTPAINT
    assert (request.image, request.mask) == (IMAGE, None)
    assert request.expansion == Expansion(left=1, right=2, up=3, down=4, fill=Fill.REFLECT)
    assert request.size == (67, 39)
    assert (request.denoising_strength, request.resize_mode, request.clip_skip) == (0.7, ResizeMode.PAD, 2)
    assert request.loras == (LoraChoice("lora/a.safetensors", 0.5), LoraChoice("lora/b.bin", -1.5))
    assert (request.save_dir, request.store_images) == ("mine/today", False)
    assert (request.keep_unmasked, request.embed_metadata) == (False, False)


def test_image_requests_have_defaults() -> None:
    request = decoded(func_name="outpaint", image=IMAGE, width=64, height=64)
    assert request.expansion == Expansion(left=128, right=128, up=128, down=128, fill=Fill.COPY)
    assert (request.denoising_strength, request.resize_mode, request.keep_unmasked) == (0.55, ResizeMode.STRETCH, True)
    assert decoded(expand=[1, 2, 3, 4]).expansion is None


@pytest.mark.parametrize("given", [0.0, 0.05, 0.1])
def test_a_small_strength_stays(given: float) -> None:
    assert decoded(func_name="i2i", image=IMAGE, denoising_strength=given).denoising_strength == given


def test_each_way_to_send_an_image() -> None:
    assert decoded(func_name="i2i", image=IMAGE).image == IMAGE
    assert decoded(func_name="i2i", image_base64=base64.b64encode(IMAGE).decode()).image == FromBase64(IMAGE)
    assert decoded(func_name="i2i", image_link="https://a.test/b.png").image == Link("https://a.test/b.png")
    as_data = decoded(func_name="i2i", image_link="data:application/octet-stream;base64,UE5H")
    assert as_data.image == DataUrl(b"PNG")
    assert (as_data.links, as_data.encoded_bytes) == ({}, 3)
    inpaint = decoded(func_name="inpaint", image=IMAGE, mask_link="https://a.test/m.png")
    assert inpaint.mask == Link("https://a.test/m.png")
    assert (inpaint.mask_channel, decoded(mask_channel="alpha").mask_channel) == ("luminance", "alpha")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"func_name": "i2i"}, r"image / image_base64 / image_link: .* i2i needs exactly one of the three"),
        ({"func_name": "i2i", "image": IMAGE, "image_link": "http://a.test"}, "image / .* needs exactly one"),
        ({"func_name": "inpaint", "image": IMAGE}, "mask / mask_base64 / mask_link: .* needs exactly one"),
        ({"func_name": "i2i", "image_link": "data:image/png;base64,?"}, "image_link: .*as base64 .* or a data URL"),
        ({"image_link": "http://a.test"}, "image_link: 'http://a.test' is invalid: t2i takes no image"),
        ({"func_name": "i2i", "image": IMAGE, "mask": IMAGE}, "mask: .* i2i takes no mask"),
        (
            {"func_name": "inpaint", "image": IMAGE, "mask": IMAGE, "mask_channel": "red"},
            "mask_channel: 'red' .* alpha",
        ),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": 1.01}, "denoising_strength: 1.01 is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": -0.1}, "denoising_strength: -0.1 is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "denoising_strength": np.nan}, "denoising_strength: nan is invalid"),
        ({"func_name": "i2i", "image": IMAGE, "resize_mode": 3}, "resize_mode: 3 is invalid: .* 0 and 2"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [1, 2, 3]}, "expand: .* must be four whole numbers"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [0] * 4}, "expand: .* at least one side must grow"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [-1, 1, 1, 1]}, "expand: -1 is invalid: .* 0 and 2048"),
        ({"func_name": "outpaint", "image": IMAGE, "expand": [2**62] * 4}, "expand: 4611686018427387904 is invalid"),
        ({"func_name": "outpaint", "image": IMAGE, "expand_type": "wrap"}, "expand_type: 'wrap' .* copy, reflect"),
        (
            {"func_name": "outpaint", "image": IMAGE, "width": 64, "height": 64, "expand": [2048, 0, 0, 0]},
            "width × height with expand: '2112×64' is invalid: at most 2048 pixels a side",
        ),
        (
            {"func_name": "outpaint", "image": IMAGE, "width": 1024, "height": 1024, "expand": [1, 0, 0, 0]},
            "width × height with expand: '1025×1024' is invalid: at most 1048576 pixels",
        ),
        ({"clip_skip": 0}, "clip_skip: 0 is invalid"),
        ({"clip_skip": 25}, "clip_skip: 25 is invalid"),
        ({"lora_path": ["a"] * 9}, "lora_path: '9 values' is invalid: at most 8"),
        ({"lora_path": ["a", "b", "c"], "lora_attn": [1.0, 2.0]}, "lora_attn: .* one value, or one for each of the 3"),
        ({"lora_path": ["a"], "lora_attn": [10.1]}, "lora_attn: 10.1 is invalid: must be between -10.0 and 10.0"),
        ({"lora_path": ["a"], "lora_attn": [np.inf]}, "lora_attn: inf is invalid"),
        ({"save_dir": "../elsewhere"}, "save_dir: '../elsewhere' is invalid"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        decoded(**fields)


@pytest.mark.parametrize(
    ("paths", "weights", "expected"),
    [
        (["a", "b"], [], [0.75, 0.75]),
        (["a", "b"], [0.4], [0.4, 0.4]),
        (["a", "b"], [0.4, -1.0], [0.4, -1.0]),
        ([], [0.4], []),
        ([""], [], []),
    ],
)
def test_weights_of_loras(paths: list[str], weights: list[float], expected: list[float]) -> None:
    assert [lora.weight for lora in decoded(lora_path=paths, lora_attn=weights).loras] == expected


def test_an_encoded_image_has_a_limit() -> None:
    small = Settings(max_image_megabytes=0.001)
    with pytest.raises(InvalidImage, match=r"image: '0\.0 MB' is invalid: at most 0\.001 MB"):
        decoded(small, func_name="i2i", image=b"x" * 1001)
