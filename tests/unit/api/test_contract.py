"""The contract is what the server does: every field is read, every reply field is there."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import DEFAULTS, array_of, result_with, tensors
from triton_diffusers.api.contract import (
    CONTRACTS,
    CONTROL_INPUTS,
    INPUT_BY_NAME,
    JOBS_INPUTS,
    JOBS_OUTPUTS,
    TRANSLATED,
    TRANSLATOR_INPUTS,
    TRANSLATOR_OUTPUTS,
    Input,
)
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.reply import reply_values
from triton_diffusers.api.request import GenerationRequest, GenerationResult
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.jobs.board import BoardEntry
from triton_diffusers.settings import Settings

# For each field a value that is not its default; a new field has to be added here.
OTHER: dict[str, Any] = {
    "task_id": "another-task",
    "prompt": "a green pear",
    "negative_prompt": "blurry",
    "func_name": "i2i",
    "steps": 7,
    "cfg_scale": 1.0,
    "width": 256,
    "height": 96,
    "seed": "18446744073709551615",
    "image_num": 3,
    "scheduler": "Euler a",
    "output_format": "webp",
    "output_quality": 80,
    "return_images": True,
    "use_base64": True,
    "denoising_strength": 0.7,
    "resize_mode": 2,
    "clip_skip": 2,
    "image": b"an image",
    "mask": b"a mask",
    "mask_channel": "alpha",
    "keep_unmasked": False,
    "store_images": False,
    "embed_metadata": False,
    "image_link": "http://example.com/a.png",
    "image_base64": "AAAA",
    "mask_link": "http://example.com/m.png",
    "mask_base64": "AAAA",
    "expand": [1, 2, 3, 4],
    "expand_type": "reflect",
    "lora_path": ["style.safetensors"],
    "lora_attn": [0.5],
    "use_translate": [True],
    "translator_warnings": ["not known"],
    "profile": "cached",
    "save_dir": "elsewhere",
    "safety_action": "flag",
    "timeout_seconds": 30.0,
    "controlnet_path": ["controlnet/depth"],
    "process_func": ["canny"],
    "control_scale": [0.5],
    "control_start": [0.25],
    "control_end": [0.75],
    "control_image": [b"a control image"],
    "control_image_base64": ["AAAA"],
    "control_image_link": ["http://example.com/c.png"],
    "return_control_image": True,
}
GENERATING = CONTRACTS["sd_controlnet"]

# Fields that text to image needs, of each model that makes images.
NEEDS: dict[str, dict[str, Any]] = {"sd_base": {}, "sd_controlnet": {"image_link": "http://example.com/a.png"}}

# What a request of each function needs, at least, and one for what only counts beside another field.
BASES: list[dict[str, Any]] = [
    {},
    {"func_name": "i2i", "image": b"image"},
    {"func_name": "inpaint", "image": b"image", "mask": b"mask"},
    {"func_name": "outpaint", "image": b"image"},
    {"lora_path": ["another.safetensors"]},
    {"image": b"image"},
    {"image": b"image", "lora_path": ["another.safetensors"]},
    {"image": b"image", "controlnet_path": ["a", "b"]},
]


@pytest.mark.parametrize("model", CONTRACTS)
def test_names_are_unique(model: str) -> None:
    for table in (CONTRACTS[model].inputs, CONTRACTS[model].outputs):
        names = [field.name for field in table]
        assert len(names) == len(set(names))


def test_a_controlnets_fields_come_on_top() -> None:
    base = CONTRACTS["sd_base"]
    assert GENERATING.inputs[: len(base.inputs)] == base.inputs
    assert GENERATING.outputs[: len(base.outputs)] == base.outputs
    assert not {field.name for field in base.inputs} & {field.name for field in CONTROL_INPUTS}


def test_the_translator_gives_what_stands_in_the_prompts_place() -> None:
    assert [output.name for output in TRANSLATOR_OUTPUTS] == [*TRANSLATED, "warnings"]
    assert [field.name for field in TRANSLATOR_INPUTS] == [*TRANSLATED, "use_translate"]


def test_every_field_has_another_value_to_test_with() -> None:
    assert OTHER.keys() == INPUT_BY_NAME.keys()


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (model, field)
        for model, needs in NEEDS.items()
        for field in CONTRACTS[model].inputs
        if not field.required and field.name not in needs
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_sending_a_default_is_leaving_the_field_out(model: str, field: Input, tmp_path: Path) -> None:
    def decoded(**values: Any) -> GenerationRequest:
        fields = {**NEEDS[model], **({} if field.name == "seed" else {"seed": "1"}), **values}
        given = read_values(tensors(**fields), CONTRACTS[model].inputs)
        return decode_request(given, Settings(runtime_dir=tmp_path), DEFAULTS)

    sent, absent = decoded(**{field.name: field.default}), decoded()
    if field.name == "seed":  # each is a random one
        assert sent.seed != absent.seed
    else:
        assert sent == absent


@pytest.mark.parametrize(
    ("model", "field"),
    [(model, field) for model in NEEDS for field in CONTRACTS[model].inputs],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_field_is_consumed(model: str, field: Input, tmp_path: Path) -> None:
    inputs = CONTRACTS[model].inputs

    def consequences(**values: Any) -> list[object]:
        """Everything that comes of a request, for each function: what the engine is asked for, and what is replied."""
        return [consequence({"seed": "1", **base, **values}) for base in BASES]

    def consequence(values: dict[str, Any]) -> object:
        wanted = read_values(tensors(**values), inputs)
        try:
            settings = Settings(runtime_dir=tmp_path, safety_action="choose")
            request = decode_request(wanted, settings, DEFAULTS)
        except InvalidRequest as error:
            return error.field
        result = result_of(request)
        return request, reply_values(
            request, result, return_images=wanted["return_images"], use_base64=wanted["use_base64"]
        )

    assert consequences(**{field.name: OTHER[field.name]}) != consequences()


def test_a_reply_has_every_output_and_no_other(tmp_path: Path) -> None:
    values = read_values(tensors(image_num=2), CONTRACTS["sd_base"].inputs)
    request = decode_request(values, Settings(runtime_dir=tmp_path), DEFAULTS)
    reply = reply_values(request, result_of(request), return_images=True, use_base64=True)
    assert reply.keys() == {output.name for output in GENERATING.outputs}
    for output in GENERATING.outputs:
        assert isinstance(reply[output.name], list | tuple) == output.many, output.name
    assert [len(reply[name]) for name in ("images", "images_base64", "is_nsfw")] == [2, 2, 2]
    assert reply["control_images_base64"] == [b"8J-NjA=="]


def test_jobs_shows_what_the_board_knows() -> None:
    assert {output.name for output in JOBS_OUTPUTS} <= {
        *(field.name for field in fields(BoardEntry)),
        "elapsed_seconds",
    }


@pytest.mark.parametrize("field", [*GENERATING.inputs, *JOBS_INPUTS], ids=lambda field: field.name)
def test_defaults_are_of_the_declared_type(field: Input) -> None:
    types = {"STRING": str, "BYTES": bytes, "INT64": int, "FP32": float, "BOOL": bool}
    elements = field.default if isinstance(field.default, tuple) else (field.default,)
    assert all(type(element) is types[field.datatype] for element in elements)
    assert read_values({field.name: array_of(field, field.default)}, (field,)) == {field.name: field.default}


def result_of(request: GenerationRequest) -> GenerationResult:
    return result_with(
        images=(b"image",) * request.image_num,
        control_images=("🍌".encode(),),
        is_nsfw=(False,) * request.image_num,
    )
