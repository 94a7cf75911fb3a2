"""The command line's ControlNets."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers_client.cli.generate_arguments import options_of
from triton_diffusers_client.cli.program import make_parser


def options(*arguments: str) -> dict[str, Any]:
    return dict(options_of(make_parser().parse_args(["generate", "a red apple", *arguments])))


def test_a_control_image_alone() -> None:
    assert options("--control-image=a.png") == {"control_image": ["a.png"]}
    assert options("--control-image=https://a.test/b.png", "--process=canny") == {
        "control_image": ["https://a.test/b.png"],
        "process_func": ["canny"],
    }


def test_the_input_image_controls_too() -> None:
    assert options("--image=a.png", "--process=canny") == {
        "func_name": "i2i",
        "image": "a.png",
        "process_func": ["canny"],
    }


def test_several_controlnets() -> None:
    assert options(
        "--controlnet=controlnet/canny", "--controlnet=controlnet/depth", "--process=canny", "--process=depth",
        "--control-scale=0.5", "--control-start=0", "--control-start=0.25", "--control-end=0.75",
        "--control-image=a.png", "--control-image=b.png", "--return-control-image",
    ) == {
        "controlnet_path": ["controlnet/canny", "controlnet/depth"],
        "process_func": ["canny", "depth"],
        "control_scale": [0.5],
        "control_start": [0.0, 0.25],
        "control_end": [0.75],
        "control_image": ["a.png", "b.png"],
        "return_control_image": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--controlnet=a"], "need --control-image or --image"),
        (["--return-control-image"], "need --control-image or --image"),
    ],
)
def test_contradicting_arguments_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(*arguments)
