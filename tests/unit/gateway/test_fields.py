"""JSON values become the contract's values, or an error that names field, value and rule."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.fields import values_from_json

FIELDS = CONTRACTS["sd_controlnet"].inputs


def read(**document: Any) -> dict[str, Any]:
    return values_from_json({"task_id": "a", "prompt": "an apple", **document}, FIELDS)


def test_missing_fields_and_nulls_get_their_defaults() -> None:
    values = read(steps=None)
    assert {name: value for name, value in values.items() if value != INPUT_BY_NAME[name].default} == {
        "task_id": "a",
        "prompt": "an apple",
    }
    assert values.keys() == {field.name for field in FIELDS}


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("steps", 20, 20),
        ("steps", 20.0, 20),
        ("cfg_scale", 7, 7.0),
        ("seed", 42, "42"),
        ("seed", 2**64 - 1, "18446744073709551615"),
        ("seed", "42", "42"),
        ("use_base64", True, True),
        ("lora_path", "a.safetensors", ("a.safetensors",)),
        ("lora_path", ["a", "b"], ("a", "b")),
        ("lora_attn", 1, (1.0,)),
        ("expand", [1, 2, 3, 4], (1, 2, 3, 4)),
        ("use_translate", False, (False,)),
    ],
)
def test_values_that_the_reference_takes(field: str, given: Any, value: Any) -> None:
    read_value = read(**{field: given})[field]
    assert (read_value, type(read_value)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "given", "rule"),
    [
        ("steps", "20", "must be a whole number of at most 64 bits"),
        ("steps", 20.5, "must be a whole number"),
        ("steps", True, "must be a whole number"),
        ("steps", 2**63, "must be a whole number"),
        ("cfg_scale", "7", "must be a number"),
        ("cfg_scale", 10**400, "must be a finite number"),
        ("prompt", 7, "must be text"),
        ("prompt", "\ud800", "text must be valid Unicode"),
        ("seed", True, "must be text"),
        ("seed", 1.5, "must be text"),
        ("use_base64", "true", "must be true or false"),
        ("lora_path", [1], "must be text"),
        ("lora_path", {"a": 1}, "must be text"),
        ("image", "AAAA", "JSON cannot carry bytes: send image_base64 or image_link instead"),
    ],
)
def test_values_of_another_type_are_refused(field: str, given: Any, rule: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{field}: .* is invalid: {rule}") as caught:
        read(**{field: given})
    assert caught.value.field == field


def test_a_missing_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prompt: None is invalid: the field is required"):
        values_from_json({"task_id": "a"}, FIELDS)
