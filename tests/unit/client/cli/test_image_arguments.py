"""The command line's input images and LoRAs."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers_client.cli.generate_arguments import options_of
from triton_diffusers_client.cli.program import make_parser


def options(*arguments: str) -> dict[str, Any]:
    return dict(options_of(make_parser().parse_args(["generate", "a red apple", *arguments])))


def test_the_function_follows_from_what_is_given() -> None:
    assert options("--image=a.png") == {"func_name": "i2i", "image": "a.png"}
    assert options("--image=a.png", "--mask=m.png") == {"func_name": "inpaint", "image": "a.png", "mask": "m.png"}
    assert options("--image=a.png", "--expand=1,2,3,4", "--expand-type=reflect") == {
        "func_name": "outpaint",
        "image": "a.png",
        "expand": [1, 2, 3, 4],
        "expand_type": "reflect",
    }


def test_image_arguments_become_options() -> None:
    assert options("--image=a.png", "--strength=0.7", "--resize-mode=pad", "--no-keep-unmasked") == {
        "func_name": "i2i",
        "image": "a.png",
        "denoising_strength": 0.7,
        "resize_mode": 2,
        "keep_unmasked": False,
    }


def test_lora_arguments_become_options() -> None:
    assert options("--lora=lora/a.safetensors:0.5", "--lora", "lora/b.bin", "--lora=c:-1", "--clip-skip=2") == {
        "lora_path": ["lora/a.safetensors", "lora/b.bin", "c"],
        "lora_attn": [0.5, 0.75, -1.0],
        "clip_skip": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask=m.png"], "need --image"),
        (["--expand=1,2,3,4"], "need --image"),
        (["--image=a.png", "--mask=m.png", "--expand=1,2,3,4"], "do not go together"),
    ],
)
def test_contradicting_arguments_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(*arguments)


@pytest.mark.parametrize("argument", ["--expand=1,2,3", "--expand=a,b,c,d", "--lora=a:b", "--resize-mode=zoom"])
def test_wrong_usage(argument: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        options(argument)
