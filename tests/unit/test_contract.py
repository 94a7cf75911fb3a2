"""The contract is what the server does: every field is read, every reply field is there."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import NATIVE_SIDE, array_of, tensors
from triton_diffusers.board import BoardEntry
from triton_diffusers.contract import (
    INPUT_BY_NAME,
    INPUTS,
    JOBS_INPUTS,
    JOBS_OUTPUTS,
    OUTPUTS,
    TRANSLATED,
    TRANSLATOR_INPUTS,
    TRANSLATOR_OUTPUTS,
    Input,
)
from triton_diffusers.decode import decode_request, read_values
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.request import GenerationRequest, GenerationResult
from triton_diffusers.settings import Settings
from triton_diffusers.triton_adapter.replies import reply_values

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
    "return_images": True,
    "use_base64": True,
    "denoising_strength": 0.7,
    "resize_mode": 2,
    "clip_skip": 2,
    "image": b"a picture",
    "mask": b"a mask",
    "keep_unmasked": False,
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
    "profile": "cached",
    "save_dir": "elsewhere",
}

# What a request of each function needs, at least, and one for what only counts beside another field.
BASES: list[dict[str, Any]] = [
    {},
    {"func_name": "i2i", "image": b"picture"},
    {"func_name": "inpaint", "image": b"picture", "mask": b"mask"},
    {"func_name": "outpaint", "image": b"picture"},
    {"lora_path": ["another.safetensors"]},
]


@pytest.mark.parametrize(
    "table",
    [INPUTS, OUTPUTS, TRANSLATOR_INPUTS, TRANSLATOR_OUTPUTS, JOBS_INPUTS, JOBS_OUTPUTS],
    ids=["in", "out", "t-in", "t-out", "j-in", "j-out"],
)
def test_names_are_unique(table: tuple[Any, ...]) -> None:
    names = [field.name for field in table]
    assert len(names) == len(set(names))


def test_the_translator_gives_what_stands_in_the_prompts_place() -> None:
    assert [output.name for output in TRANSLATOR_OUTPUTS] == list(TRANSLATED)
    assert [field.name for field in TRANSLATOR_INPUTS] == [*TRANSLATED, "use_translate"]


def test_every_field_has_another_value_to_test_with() -> None:
    assert OTHER.keys() == INPUT_BY_NAME.keys()


@pytest.mark.parametrize("field", [field for field in INPUTS if not field.required], ids=lambda field: field.name)
def test_sending_a_default_is_leaving_the_field_out(field: Input, tmp_path: Path) -> None:
    settings = Settings(runtime_dir=tmp_path)
    seed = {} if field.name == "seed" else {"seed": "1"}
    sent = decode_request(tensors(**seed, **{field.name: field.default}), settings, NATIVE_SIDE)
    absent = decode_request(tensors(**seed), settings, NATIVE_SIDE)
    if field.name == "seed":  # each is a random one
        assert sent.seed != absent.seed
    else:
        assert sent == absent


@pytest.mark.parametrize("field", INPUTS, ids=lambda field: field.name)
def test_every_field_is_consumed(field: Input, tmp_path: Path) -> None:
    def consequences(**values: Any) -> list[object]:
        """Everything that comes of a request, for each function: what the engine is asked for, and what is replied."""
        return [consequence({"seed": "1", **base, **values}) for base in BASES]

    def consequence(values: dict[str, Any]) -> object:
        arrays = tensors(**values)
        try:
            request = decode_request(arrays, Settings(runtime_dir=tmp_path), NATIVE_SIDE)
        except InvalidRequest as error:
            return error.field
        wanted = read_values(arrays, INPUTS)
        reply = reply_values(result_of(request), return_images=wanted["return_images"], use_base64=wanted["use_base64"])
        return request, reply

    assert consequences(**{field.name: OTHER[field.name]}) != consequences()


def test_a_reply_has_every_output_and_no_other(tmp_path: Path) -> None:
    result = result_of(decode_request(tensors(image_num=2), Settings(runtime_dir=tmp_path), NATIVE_SIDE))
    reply = reply_values(result, return_images=True, use_base64=True)
    assert reply.keys() == {output.name for output in OUTPUTS}
    for output in OUTPUTS:
        assert isinstance(reply[output.name], list | tuple) == output.many, output.name
    assert [len(reply[name]) for name in ("images", "images_base64", "is_nsfw")] == [2, 2, 2]


def test_jobs_shows_what_the_board_knows() -> None:
    assert {output.name for output in JOBS_OUTPUTS} <= {
        *(field.name for field in fields(BoardEntry)),
        "elapsed_seconds",
    }


@pytest.mark.parametrize("field", [*INPUTS, *JOBS_INPUTS], ids=lambda field: field.name)
def test_defaults_are_of_the_declared_type(field: Input) -> None:
    types = {"STRING": str, "BYTES": bytes, "INT64": int, "FP32": float, "BOOL": bool}
    elements = field.default if isinstance(field.default, tuple) else (field.default,)
    assert all(type(element) is types[field.datatype] for element in elements)
    assert read_values({field.name: array_of(field, field.default)}, (field,)) == {field.name: field.default}


def result_of(request: GenerationRequest) -> GenerationResult:
    return GenerationResult(
        request=request,
        images=(b"picture",) * request.image_num,
        is_nsfw=(False,) * request.image_num,
        image_urls=(),
        oss_urls=(),
        optimized=False,
        warnings=(),
        queue_seconds=0.0,
        run_seconds=0.0,
    )
