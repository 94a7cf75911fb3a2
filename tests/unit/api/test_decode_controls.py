"""Decoding the ControlNets of a request: how many, each field for one or for all, and where the images are."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.unit.conftest import DEFAULTS, ROOT, tensors
from triton_diffusers.api.contract import CONTRACTS, INPUTS
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import ControlChoice, FromBase64, Function, GenerationRequest, Link
from triton_diffusers.errors import InvalidImage, InvalidRequest
from triton_diffusers.preprocess import PREPROCESSORS
from triton_diffusers.settings import Settings

IMAGE, OTHER = b"\x89PNG, or whatever it is", b"another one"
EXAMPLES = json.loads((ROOT / "tests" / "data" / "example_requests.json").read_text(encoding="utf-8"))["controlnet"]
# The process_funcs of the reference's examples, whose requests are otherwise alike.
OF_THE_REFERENCE = ("canny", "depth", "hed", "mlsd", "normal", "openpose", "scribble", "seg")


def decoded(settings: Settings | None = None, /, **values: Any) -> GenerationRequest:
    sent = read_values(tensors(**values), CONTRACTS["sd_controlnet"].inputs)
    return decode_request(sent, settings or Settings(), DEFAULTS)


def test_a_request_with_everything() -> None:
    request = decoded(
        func_name="i2i",
        image=IMAGE,
        controlnet_path=["controlnet/canny", "controlnet/depth.safetensors"],
        process_func=["canny", "depth"],
        control_scale=[0.55, 1.5],
        control_start=[0.0, 0.25],
        control_end=[0.5, 1.0],
        control_image=[IMAGE, OTHER],
        return_control_image=True,
    )
    assert request.controls == (
        ControlChoice(path="controlnet/canny", process="canny", scale=0.55, end=0.5, image=IMAGE),
        ControlChoice(
            path="controlnet/depth.safetensors", process="depth", scale=1.5, start=0.25, end=1.0, image=OTHER
        ),
    )
    assert (request.image, request.return_control_image, request.has_images) == (IMAGE, True, True)


def test_without_its_fields_it_is_the_model_directorys_own_with_the_image_as_it_is() -> None:
    for fields in ({}, {"controlnet_path": [""], "process_func": [""]}):
        request = decoded(image=IMAGE, **fields)
        assert request.controls == (ControlChoice(path=""),)
        assert (request.function, request.image) == (Function.TEXT_TO_IMAGE, IMAGE)


def test_the_base_model_has_no_controlnets() -> None:
    request = decode_request(read_values(tensors(), INPUTS), Settings(), DEFAULTS)
    assert (request.controls, request.return_control_image, request.has_images) == ((), False, False)


def test_a_single_value_applies_to_all_controlnets() -> None:
    request = decoded(
        controlnet_path=["a", "b", ""],
        process_func=["hed"],
        control_scale=[0.5],
        control_start=[0.25],
        control_end=[0.75],
        control_image_link=["https://a.test/c.png"],
    )
    link = Link("https://a.test/c.png")
    assert [control.path for control in request.controls] == ["a", "b", ""]
    for control in request.controls:
        assert (control.process, control.scale, control.start, control.end) == ("hed", 0.5, 0.25, 0.75)
        assert control.image == link
    assert request.image is None
    assert request.has_images


@pytest.mark.parametrize("function", ["i2i", "inpaint", "outpaint"])
def test_the_input_image_controls_unless_others_are_sent(function: str) -> None:
    fields: dict[str, Any] = {"func_name": function, "image": IMAGE, "width": 64, "height": 64}
    if function == "inpaint":
        fields["mask"] = IMAGE
    (control,) = decoded(**fields).controls
    assert control.image is None
    (control,) = decoded(**fields, control_image_base64=[base64.b64encode(OTHER).decode()]).controls
    assert control.image == FromBase64(OTHER)


def test_the_same_base64_is_the_same_bytes() -> None:
    text = base64.b64encode(IMAGE).decode()
    first, second = decoded(controlnet_path=["a", "b"], control_image_base64=[text, text]).controls
    assert first.image is second.image


@pytest.mark.parametrize("name", OF_THE_REFERENCE)
def test_the_references_requests(name: str) -> None:
    request = decoded(**{**EXAMPLES[0], "task_id": name, "process_func": name})
    assert [control.process for control in request.controls] == [name]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["task_id"])
def test_the_references_requests_as_they_are(example: dict[str, Any]) -> None:
    request = decoded(**example)
    path, process = example.get("controlnet_path", ""), example["process_func"]
    assert request.controls == (ControlChoice(path=path, process=process),)
    assert request.image == Link(example["image_link"])


@pytest.mark.parametrize("name", list(PREPROCESSORS))
def test_every_preprocessor_is_known(name: str) -> None:
    assert decoded(image=IMAGE, process_func=[name]).controls[0].process == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controlnet_path": ["a"] * 5}, "controlnet_path: '5 values' is invalid: at most 4"),
        ({"process_func": ["warp"]}, "process_func: 'warp' is invalid: must be one of: canny, .*tile"),
        ({"process_func": ["canny", "canny"]}, "process_func: .* one value, or one for each of the 1 ControlNets"),
        (
            {"controlnet_path": ["a", "b", "c"], "control_scale": [1.0, 2.0]},
            r"control_scale: \(1.0, 2.0\) is invalid: one value, or one for each of the 3 ControlNets",
        ),
        ({"control_scale": [10.01]}, "control_scale: 10.01 is invalid: must be between 0.0 and 10.0"),
        ({"control_scale": [-0.1]}, "control_scale: -0.1 is invalid"),
        ({"control_scale": [np.nan]}, "control_scale: nan is invalid"),
        ({"control_start": [-0.1]}, "control_start: -0.1 is invalid: must be between 0.0 and 1.0"),
        ({"control_end": [1.1]}, "control_end: 1.1 is invalid: must be between 0.0 and 1.0"),
        ({"control_end": [np.inf]}, "control_end: inf is invalid"),
        (
            {"control_start": [0.5], "control_end": [0.5]},
            "control_start / control_end: '0.5 to 0.5' is invalid: must begin before it ends",
        ),
        ({"control_start": [1.0]}, "control_start / control_end: '1.0 to 1.0'"),
        ({"image": b""}, "image / image_base64 / image_link: .* t2i without control_image needs exactly one"),
        ({"control_image": [IMAGE]}, "image: .* t2i with control_image takes no image"),
        (
            {"image": b"", "control_image": [IMAGE], "control_image_link": ["http://a.test"]},
            "control_image / control_image_base64 / control_image_link: .* at most one of the three",
        ),
        (
            {"image": b"", "controlnet_path": ["a", "b", "c"], "control_image": [IMAGE, OTHER]},
            "control_image: .* one value, or one for each of the 3 ControlNets",
        ),
        ({"image": b"", "control_image_base64": ["?"]}, "control_image_base64: .* must be an image as base64"),
        (
            {"image": b"", "controlnet_path": ["a", "b"], "control_image_base64": ["AAAA", ""]},
            "control_image_base64: '' is invalid",
        ),
        ({"func_name": "i2i", "image": b"", "control_image": [IMAGE]}, "image / .* i2i needs exactly one"),
        ({"mask": IMAGE}, "mask: .* t2i takes no mask"),
    ],
)
def test_invalid_controls_are_refused_with_field_value_and_limit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        decoded(**{"image": IMAGE, **fields})


def test_the_base_model_does_not_look_at_their_fields() -> None:
    sent = read_values(tensors(control_scale=[99.0]), INPUTS)
    assert decode_request(sent, Settings(), DEFAULTS).controls == ()


@pytest.mark.parametrize("kind", ["control_image", "control_image_base64"])
def test_control_images_are_bounded_together(kind: str) -> None:
    small = Settings(max_image_megabytes=0.001)
    sent: list[Any] = [bytes([index]) * 400 for index in range(3)]
    if kind.endswith("base64"):
        sent = [base64.b64encode(image).decode() for image in sent]
    decoded(small, controlnet_path=["a", "b"], **{kind: sent[:2]})
    decoded(small, controlnet_path=["a", "b", "c", "d"], **{kind: sent[:1]})
    with pytest.raises(InvalidImage, match=f"{kind}: '0.0 MB' is invalid: at most 0.001 MB"):
        decoded(small, controlnet_path=["a", "b", "c"], **{kind: sent})


def test_the_number_is_a_setting() -> None:
    with pytest.raises(InvalidRequest, match="at most 1"):
        decoded(Settings(max_controlnets=1), image=IMAGE, controlnet_path=["a", "b"])


def test_no_preprocessor_is_imported_to_know_its_name() -> None:
    program = (
        "import sys, triton_diffusers.api.decode; "
        "print([name for name in sys.modules if name.split('.')[0] in ('cv2', 'skimage')"
        " or name.startswith('triton_diffusers.preprocess.canny')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
