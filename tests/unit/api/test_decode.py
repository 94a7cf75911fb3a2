"""Decoding requests: each field at, below and above its limits, and anything at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.conftest import DEFAULTS, NATIVE_SIDE, tensors
from triton_diffusers.api.contract import INPUTS
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.request import (
    Function,
    GenerationRequest,
    OutputFormat,
    SafetyAction,
)
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.settings import Settings

SETTINGS = Settings(max_prompt_chars=1000)


def decoded(settings: Settings = SETTINGS, /, **values: Any) -> GenerationRequest:
    return decode_request(read_values(tensors(**values), INPUTS), settings, DEFAULTS)


def test_a_request_with_everything() -> None:
    request = decoded(
        task_id="t-1",
        prompt="蓝色背景上的红苹果",
        negative_prompt="blurry 🍎",
        func_name="t2i",
        steps=20,
        cfg_scale=5.55,
        width=100,
        height=90,
        seed="123",
        image_num=2,
        scheduler="euler ancestral",
        output_format="jpeg",
    )
    assert request == GenerationRequest(
        task_id="t-1",
        prompt="蓝色背景上的红苹果",
        negative_prompt="blurry 🍎",
        function=Function.TEXT_TO_IMAGE,
        steps=20,
        guidance_scale=5.55,
        width=100,
        height=90,
        seed=123,
        image_num=2,
        scheduler="Euler a",
        output_format=OutputFormat.JPEG,
    )


def test_a_size_that_is_left_out_is_the_models_own() -> None:
    assert (decoded().width, decoded().height) == (NATIVE_SIDE, NATIVE_SIDE)
    assert (decoded(width=64).width, decoded(width=64).height) == (64, NATIVE_SIDE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 1),
        ("steps", 150),
        ("cfg_scale", 1.0),
        ("cfg_scale", 30.0),
        ("width", 16),
        ("width", 2048),
        ("height", 16),
        ("height", 2048),
        ("image_num", 1),
        ("image_num", 8),
        ("prompt", ""),
        ("prompt", "x" * 1000),
        ("prompt", "\0\n\u202e"),
        ("negative_prompt", "汉" * 1000),
        ("scheduler", "lcm"),
        ("output_format", "webp"),
        ("seed", "0"),
        ("seed", str(2**64 - 1)),
        ("seed", "00000000000000000007"),
        ("task_id", "a"),
        ("task_id", "x" * 128),
        ("task_id", "a..b"),
        ("task_id", "_-.A9"),
    ],
)
def test_values_at_the_limits_are_accepted(field: str, value: Any) -> None:
    decoded(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", -1, "steps: -1 is invalid: must be between 1 and 150"),
        ("steps", 151, "steps: 151 is invalid: must be between 1 and 150"),
        ("steps", -(2**63), "steps: -9223372036854775808 is invalid"),
        ("steps", 2**63 - 1, "steps: 9223372036854775807 is invalid"),
        ("cfg_scale", 0.99, "cfg_scale: 0.99 is invalid: must be between 1.0 and 30.0"),
        ("cfg_scale", 30.01, "cfg_scale: 30.01 is invalid: must be between 1.0 and 30.0"),
        ("cfg_scale", np.nan, "cfg_scale: nan is invalid"),
        ("cfg_scale", np.inf, "cfg_scale: inf is invalid"),
        ("cfg_scale", -np.inf, "cfg_scale: -inf is invalid"),
        ("width", 15, "width: 15 is invalid: must be between 16 and 2048"),
        ("width", 2049, "width: 2049 is invalid: must be between 16 and 2048"),
        ("width", -1, "width: -1 is invalid"),
        ("height", 15, "height: 15 is invalid: must be between 16 and 2048"),
        ("height", 2049, "height: 2049 is invalid: must be between 16 and 2048"),
        ("image_num", 0, "image_num: 0 is invalid: must be between 1 and 8"),
        ("image_num", 9, "image_num: 9 is invalid: must be between 1 and 8"),
        ("prompt", "x" * 1001, "prompt: '1001 characters' is invalid: at most 1000"),
        ("negative_prompt", "汉" * 1001, "negative_prompt: '1001 characters' is invalid: at most 1000"),
        ("scheduler", "magic", "scheduler: 'magic' is invalid: known: DPM++ 2M .*LCM"),
        ("func_name", "t2v", "func_name: 't2v' is invalid: must be one of: t2i, i2i, inpaint, outpaint"),
        ("output_format", "PNG", "output_format: 'PNG' is invalid: must be one of: png, jpeg, webp"),
        ("output_format", "", "output_format: '' is invalid"),
        ("output_quality", 0, "output_quality: 0 is invalid: must be between 1 and 100"),
        ("output_quality", 101, "output_quality: 101 is invalid: must be between 1 and 100"),
        ("seed", "-2", "seed: '-2' is invalid: a whole number from 0 to 18446744073709551615"),
        ("seed", str(2**64), "seed: '18446744073709551616' is invalid"),
        ("seed", "0" * 21, "seed: '000000000000000000000' is invalid"),
        ("seed", "1.5", "seed: '1.5' is invalid"),
        ("seed", " 1", "seed: ' 1' is invalid"),
        ("seed", "1\n", "seed: "),
        ("seed", "٣", "seed: '٣' is invalid"),  # a digit, but no ASCII one
        ("seed", "0x10", "seed: '0x10' is invalid"),
        ("task_id", "", "task_id: '' is invalid: 1 to 128 letters"),
        ("task_id", ".", "task_id: '.' is invalid"),
        ("task_id", "..", "task_id: '..' is invalid"),
        ("task_id", ".hidden", "task_id: '.hidden' is invalid"),
        ("task_id", "a/b", "task_id: 'a/b' is invalid"),
        ("task_id", "../a", "task_id: '../a' is invalid"),
        ("task_id", "a\\b", "task_id: "),
        ("task_id", "a\0b", "task_id: "),
        ("task_id", "a b", "task_id: 'a b' is invalid"),
        ("task_id", "a\n", "task_id: "),
        ("task_id", "é", "task_id: 'é' is invalid"),
        ("task_id", "任务", "task_id: '任务' is invalid"),
        ("task_id", "x" * 129, "task_id: 'x{78}… is invalid: 1 to 128 letters"),
    ],
)
def test_values_beyond_the_limits_are_refused_with_field_value_and_limit(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message.replace('+', '[+]')}") as caught:
        decoded(**{field: value})
    assert caught.value.field == field


def test_the_area_has_a_limit_of_its_own() -> None:
    decoded(width=1024, height=1024)
    decoded(width=2048, height=512)
    with pytest.raises(InvalidRequest, match="width × height: '2048×513' is invalid: at most 1048576 pixels"):
        decoded(width=2048, height=513)


def test_no_more_images_than_can_be_in_flight() -> None:
    with pytest.raises(InvalidRequest, match="image_num: 3 is invalid: must be between 1 and 2"):
        decoded(Settings(max_images_in_flight=2), image_num=3)


@pytest.mark.parametrize("nothing", ["", "-1"])
def test_no_seed_is_a_random_one(nothing: str) -> None:
    seeds = {decoded(seed=nothing).seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize("missing", ["task_id", "prompt"])
def test_required_fields(missing: str) -> None:
    fields = tensors()
    del fields[missing]
    with pytest.raises(InvalidRequest, match=f"{missing}: None is invalid: the field is required"):
        read_values(fields, INPUTS)


@pytest.mark.parametrize("name", ["prompt", "steps", "return_images", "cfg_scale"])
def test_a_second_row_or_none_is_refused(name: str) -> None:
    fields = tensors(steps=3, return_images=True, cfg_scale=3.0)
    for rows in (np.concatenate([fields[name]] * 2), fields[name][:0]):
        with pytest.raises(InvalidRequest, match=f"{name}: '{rows.size} values' is invalid: exactly one"):
            read_values({**fields, name: rows}, INPUTS)


def test_a_second_row_of_a_list_is_refused() -> None:
    rows = np.ones((2, 2), np.int64)
    with pytest.raises(InvalidRequest, match="expand: '2 rows' is invalid"):
        read_values({**tensors(), "expand": rows}, INPUTS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lora_attn", np.zeros((1, 1025), np.float32)),
        ("expand", np.zeros((1, 100_000), np.int64)),
        ("lora_path", np.full((1, 1025), b"a", np.object_)),
        ("use_translate", np.zeros((1, 5000), np.bool_)),
    ],
)
def test_every_lists_length_is_bounded(name: str, values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{name}: '{values.size} values' is invalid: at most 1024$"):
        read_values({**tensors(), name: values}, INPUTS)
    assert len(read_values({**tensors(), name: values[:, :1024]}, INPUTS)[name]) == 1024


@pytest.mark.parametrize("name", ["task_id", "prompt", "negative_prompt", "seed", "scheduler", "save_dir"])
def test_text_must_be_utf_8(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"{name}: b'.*xff' is invalid: text must be UTF-8"):
        decoded(**{name: b"ab\xff"})


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decoded(scheduler="x" * 10_000)
    assert len(str(caught.value).split(" is invalid")[0]) == len("scheduler: ") + 80


def test_a_float_is_shown_as_it_was_written() -> None:
    with pytest.raises(InvalidRequest, match=r"denoising_strength: 1\.56 is invalid"):
        decoded(denoising_strength=1.56)


@pytest.mark.parametrize(
    ("setting", "field", "action"),
    [
        ("blacken", "", SafetyAction.BLACKEN),
        ("blacken", "blacken", SafetyAction.BLACKEN),
        ("choose", "", SafetyAction.BLACKEN),
        ("choose", "flag", SafetyAction.FLAG),
        ("flag", "", SafetyAction.FLAG),
        ("flag", "flag", SafetyAction.FLAG),
        ("flag", "blacken", SafetyAction.BLACKEN),
    ],
)
def test_safety_action_is_what_the_operator_allows(setting: Any, field: str, action: SafetyAction) -> None:
    assert decoded(Settings(safety_action=setting), safety_action=field).safety_action is action


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "flag",
            "safety_action: 'flag' is invalid: this server blackens flagged images; its operator may allow it",
        ),
        ("off", "safety_action: 'off' is invalid: must be one of: blacken, flag"),
    ],
)
def test_safety_action_is_refused_unless_it_is_allowed(value: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}$"):
        decoded(safety_action=value)
