"""Metadata of images, read back by another project's reader."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image
from sd_parsers import ParserManager
from sd_parsers.data import Generators, PromptInfo

from tests.unit.conftest import request_for, tensors
from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import (
    ControlChoice,
    Expansion,
    Fill,
    Function,
    GenerationRequest,
    Link,
    LoraChoice,
    ModelDefaults,
    OutputFormat,
    ResizeMode,
)
from triton_diffusers.images.encode import encode
from triton_diffusers.images.metadata import metadata_of, parameters_text, record_text
from triton_diffusers.sampling.profiles import EXACT, PROFILES
from triton_diffusers.settings import Settings

PROGRAM = f"triton-diffusers {version('triton-diffusers')}"
SECRET = "https://example.com/in.png?token=geheim"

FULL = request_for(
    negative_prompt="blurry",
    function=Function.OUTPAINT,
    image=Link(SECRET),
    expansion=Expansion(left=8, right=16, up=0, down=24, fill=Fill.REFLECT),
    denoising_strength=0.7,
    resize_mode=ResizeMode.PAD,
    keep_unmasked=False,
    loras=(LoraChoice("lora/a.safetensors", 0.75), LoraChoice("b c.safetensors", -1.0)),
    controls=(
        ControlChoice(path="", process="canny", scale=0.5, end=0.75),
        ControlChoice(path="controlnet/depth.safetensors", scale=1.25, start=0.1),
    ),
    clip_skip=2,
    profile=PROFILES["cached"],
    save_dir="a-folder",
    guidance_scale=7.5,
    seed=2**64 - 1,
    image_num=2,
    scheduler="DPM++ 2M Karras",
)


def encoded(request: GenerationRequest, index: int = 0, model: str = "") -> bytes:
    pixels = np.full((request.size[1], request.size[0], 3), 127, np.uint8)
    return encode(pixels, request.output_format, metadata_of(request, index, model))


# The reader knows the last JPEG by the address of its object, so no address may come a second time.
_READ: list[Image.Image] = []


def read(data: bytes) -> PromptInfo:
    _READ.append(Image.open(io.BytesIO(data)))
    found = ParserManager().parse(_READ[-1])
    assert found is not None
    assert found.generator == Generators.AUTOMATIC1111
    return found


def test_a_plain_request() -> None:
    assert parameters_text(request_for(), 1, "emoji") == (
        "a red apple\n"
        f"Steps: 4, Sampler: DPM++ 2M, CFG scale: 3, Seed: 2, Size: 64x64, Model: emoji, Version: {PROGRAM}"
    )


def test_everything_that_can_be_said() -> None:
    assert parameters_text(FULL, 1).splitlines() == [
        "a red apple",
        "Negative prompt: blurry",
        "Steps: 4, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 0, Size: 88x88, "
        'ControlNet 0: "Module: canny, Model: controlnet, Weight: 0.5, Guidance Start: 0, Guidance End: 0.75", '
        'ControlNet 1: "Module: none, Model: controlnet/depth.safetensors, Weight: 1.25, Guidance Start: 0.1, '
        'Guidance End: 1", Denoising strength: 0.7, Clip skip: 2, '
        f'Loras: "lora/a.safetensors:0.75, b c.safetensors:-1", Profile: cached, Version: {PROGRAM}',
    ]


def test_a_value_with_a_separator_is_quoted() -> None:
    text = parameters_text(request_for(), 0, 'a, "b": c')
    assert r'Model: "a, \"b\": c", Version' in text


def test_a_prompt_that_is_empty_leaves_no_empty_line() -> None:
    assert parameters_text(request_for(prompt=""), 0).startswith("Steps: ")


def test_nul_does_not_cut_a_text() -> None:
    assert parameters_text(request_for("a\0b"), 0).startswith("a\N{REPLACEMENT CHARACTER}b\n")


@pytest.mark.parametrize("output_format", OutputFormat)
@pytest.mark.parametrize("prompt", ["a red apple, (shiny:1.3)", "蓝色背景上的红苹果 🍎", "café"])
def test_sd_parsers_reads_the_metadata(prompt: str, output_format: OutputFormat) -> None:
    request = request_for(prompt, negative_prompt="模糊, low: quality", output_format=output_format, seed=41)
    found = read(encoded(request, 1, "emoji"))
    (sampler,) = found.samplers
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters["seed"] == "42"
    assert sampler.parameters["steps"] == "4"
    assert [said.value for said in sampler.prompts] == [prompt]
    assert [said.value for said in sampler.negative_prompts] == ["模糊, low: quality"]
    assert sampler.model is not None
    assert sampler.model.name == "emoji"
    assert found.metadata["Size"] == "64x64"


def test_controlnets_do_not_pose_as_the_checkpoint() -> None:
    found = read(encoded(FULL, 0, "emoji"))
    (sampler,) = found.samplers
    assert sampler.model is not None
    assert sampler.model.name == "emoji"
    assert sampler.parameters["seed"] == str(FULL.seed)
    assert found.metadata["Size"] == "88x88"


def test_controlnets_can_be_taken_apart() -> None:
    pairs = dict(re.findall(r'([\w ]+): ("[^"]*"|[^,]*)', parameters_text(FULL, 0).splitlines()[-1]))
    assert dict(pair.split(": ") for pair in pairs[" ControlNet 0"].strip('"').split(", ")) == {
        "Module": "canny",
        "Model": "controlnet",
        "Weight": "0.5",
        "Guidance Start": "0",
        "Guidance End": "0.75",
    }


def test_a_prompt_cannot_pose_as_the_parameters() -> None:
    forged = "x\nSteps: 99, Sampler: Forged, CFG scale: 1, Seed: 5, Size: 1x1"
    request = request_for(forged)
    (sampler,) = read(encoded(request)).samplers
    assert sampler.name == "DPM++ 2M"
    assert json.loads(record_text(request, 0))["request"]["prompt"] == forged


@pytest.mark.parametrize(("prompt", "latin"), [("café", True), ("红苹果", False)])
def test_png_text_chunks(prompt: str, latin: bool) -> None:
    data = encoded(request_for(prompt))
    assert (b"tEXtparameters\0" in data) is latin
    assert (b"iTXtparameters\0" in data) is not latin
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text["parameters"] == parameters_text(request_for(prompt), 0)
        assert image.text["triton_diffusers"] == record_text(request_for(prompt), 0)


def test_the_record_has_the_apis_fields_and_makes_that_image_again() -> None:
    request = dataclasses.replace(FULL, image=b"\x89PNG", image_num=2, embed_metadata=True)
    record = json.loads(record_text(request, 1, "emoji"))
    fields = record.pop("request")
    assert record == {"version": PROGRAM, "task_id": "a-task", "image_index": 1, "model": "emoji"}
    assert fields.keys() <= INPUT_BY_NAME.keys()
    sent = read_values(tensors(**fields, image=b"\x89PNG"), CONTRACTS["sd_controlnet"].inputs)
    again = decode_request(sent, Settings(), ModelDefaults(side=64))
    assert again == dataclasses.replace(request, seed=(FULL.seed + 1) % 2**64, image_num=1, save_dir="result")


def test_the_record_of_an_image_that_only_controls_makes_it_again() -> None:
    control = ControlChoice(path="", process="canny")
    request = request_for(image=b"\x89PNG", controls=(control,), resize_mode=ResizeMode.CROP, embed_metadata=True)
    fields = json.loads(record_text(request, 0))["request"]
    sent = read_values(tensors(**fields, image=b"\x89PNG"), CONTRACTS["sd_controlnet"].inputs)
    assert decode_request(sent, Settings(), ModelDefaults(side=64)) == request


# Another value for each field of a request that the record is to show.
OTHERS = {
    "task_id": "b-task",
    "prompt": "a pear",
    "negative_prompt": "",
    "function": Function.INPAINT,
    "steps": 5,
    "guidance_scale": 1.0,
    "width": 72,
    "height": 72,
    "seed": 9,
    "scheduler": "DDIM",
    "output_format": OutputFormat.WEBP,
    "denoising_strength": 0.5,
    "resize_mode": ResizeMode.CROP,
    "expansion": Expansion(left=1, right=2, up=3, down=4),
    "keep_unmasked": True,
    "loras": (),
    "controls": (),
    "clip_skip": 1,
    "profile": EXACT,
}
# The record is of one image, not of those that it was made of.
LEFT_OUT = {"image", "mask", "save_dir", "store_images", "embed_metadata", "image_num", "return_control_image"} | {
    "mask_channel",
    "output_quality",
    "safety_action",
    "timeout_seconds",
    "warnings",
}


def test_every_field_of_a_request_is_recorded_or_left_out_on_purpose() -> None:
    assert {field.name for field in dataclasses.fields(GenerationRequest)} == OTHERS.keys() | LEFT_OUT


@pytest.mark.parametrize("name", OTHERS)
def test_the_record_shows(name: str) -> None:
    assert record_text(dataclasses.replace(FULL, **{name: OTHERS[name]}), 0) != record_text(FULL, 0)


def test_metadata_has_no_images_links_or_folders() -> None:
    for function in Function:
        controls = (ControlChoice(path="", image=Link(SECRET)), ControlChoice(path="a", image=b"mask-bytes"))
        request = dataclasses.replace(FULL, function=function, mask=b"mask-bytes", controls=controls)
        metadata = metadata_of(request, 0)
        for text in (metadata.parameters, metadata.record):
            assert "geheim" not in text
            assert "example.com" not in text
            assert "mask-bytes" not in text
            assert "a-folder" not in text


@pytest.mark.parametrize("length", [10_000, 16_000, 16_400, 40_000])
@pytest.mark.parametrize("output_format", OutputFormat)
def test_no_prompt_is_too_long_for_an_image(length: int, output_format: OutputFormat) -> None:
    request = request_for("🍎" * length, output_format=output_format)
    with Image.open(io.BytesIO(encoded(request))) as image:
        image.load()
        said = image.text["parameters"] if output_format is OutputFormat.PNG else image.getexif().get_ifd(0x8769)
    if output_format is OutputFormat.JPEG:
        assert bool(said) is (length < 16_400)  # an EXIF segment holds 64 KiB
    else:
        assert said
