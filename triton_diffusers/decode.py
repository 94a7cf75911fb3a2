"""Decoding a request: tensors in, a valid ``GenerationRequest`` out. Past this module nothing is unchecked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from triton_diffusers.contract import INPUTS, Input
from triton_diffusers.errors import InvalidRequest, NotSupported
from triton_diffusers.request import Function, GenerationRequest, OutputFormat
from triton_diffusers.schedulers import scheduler_name
from triton_diffusers.settings import Settings

Array = np.ndarray[Any, Any]

_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SEED = re.compile(r"[0-9]{1,20}")
_SEEDS = 2**64
_SMALLEST_SIDE = 16
_LARGEST_GUIDANCE = 30.0

Choice = TypeVar("Choice", Function, OutputFormat)


def decode_request(tensors: Mapping[str, Array], settings: Settings, native_side: int) -> GenerationRequest:
    """Decode the inputs that were sent; raises ``InvalidRequest`` or ``NotSupported`` for the first that is not right.

    ``tensors`` has arrays of shape (1, n), as Triton hands them out: BYTES as objects, the others by their type.
    ``native_side`` is the width and height, in pixels, of a picture of no stated size.
    """
    values = read_values(tensors, INPUTS)
    for field in INPUTS:
        if not field.served and values[field.name] != field.default:
            raise NotSupported(field.name, values[field.name])
    function = _choice("func_name", values["func_name"], Function)
    if function is not Function.TEXT_TO_IMAGE:
        raise NotSupported("func_name", function.value)
    most_images = min(settings.max_image_num, settings.max_images_in_flight)
    width, height = (
        _between(side, values[side] or native_side, _SMALLEST_SIDE, settings.max_side) for side in ("width", "height")
    )
    if width * height > settings.max_pixels:
        raise InvalidRequest("width × height", f"{width}×{height}", f"at most {settings.max_pixels} pixels")
    return GenerationRequest(
        task_id=_task_id(values["task_id"]),
        prompt=_prompt("prompt", values["prompt"], settings),
        negative_prompt=_prompt("negative_prompt", values["negative_prompt"], settings),
        function=function,
        steps=_between("steps", values["steps"], 1, settings.max_steps),
        guidance_scale=_between("cfg_scale", values["cfg_scale"], 1.0, _LARGEST_GUIDANCE),
        width=width,
        height=height,
        seed=_seed(values["seed"]),
        image_num=_between("image_num", values["image_num"], 1, most_images),
        scheduler=scheduler_name(values["scheduler"]),
        output_format=_choice("output_format", values["output_format"], OutputFormat),
    )


def read_values(tensors: Mapping[str, Array], fields: tuple[Input, ...]) -> dict[str, Any]:
    """The value of each field, in Python's types: the default where none was sent, a tuple for a list.

    Raises ``InvalidRequest`` for a missing required field, a second row, or bytes that are not UTF-8.
    """
    values: dict[str, Any] = {}
    for field in fields:
        array = tensors.get(field.name)
        if array is not None:
            values[field.name] = _read(field, array)
        elif field.required:
            raise InvalidRequest(field.name, None, "the field is required")
        else:
            values[field.name] = field.default
    return values


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "INT64": int,
    # A float32 that was written as 0.55 is to be 0.55 again, not 0.550000011920929.
    "FP32": lambda number: float(np.format_float_positional(number, unique=True)),
    "BOOL": bool,
}


def _read(field: Input, array: Array) -> Any:
    if field.many:
        if array.ndim > 1 and array.shape[0] != 1:
            raise InvalidRequest(field.name, f"{array.shape[0]} rows", "send each picture's request by itself")
        return tuple(_element(field, element) for element in array.flat)
    if array.size != 1:
        raise InvalidRequest(field.name, f"{array.size} values", "exactly one (send each request by itself)")
    return _element(field, array.flat[0])


def _element(field: Input, element: Any) -> Any:
    if field.datatype != "STRING":
        return _READERS[field.datatype](element)
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError as error:
        raise InvalidRequest(field.name, element, "text must be UTF-8") from error


def _between(field: str, value: Any, low: Any, high: Any) -> Any:
    # Written so that NaN, which compares false with everything, is refused.
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low} and {high}")
    return value


def _choice(field: str, value: str, choices: type[Choice]) -> Choice:
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise InvalidRequest(field, value, f"must be one of: {known}") from None


def _task_id(value: str) -> str:
    if not _TASK_ID.fullmatch(value):
        raise InvalidRequest(
            "task_id", value, "1 to 128 letters, digits, '.', '_' or '-', and no '.' at the start (it names files)"
        )
    return value


def _prompt(field: str, value: str, settings: Settings) -> str:
    if len(value) > settings.max_prompt_chars:
        raise InvalidRequest(field, f"{len(value)} characters", f"at most {settings.max_prompt_chars}")
    return value


def _seed(value: str) -> int:
    if value in ("", "-1"):  # -1 is what many tools send for "random"
        return secrets.randbits(64)
    if not _SEED.fullmatch(value) or int(value) >= _SEEDS:
        raise InvalidRequest("seed", value, f"a whole number from 0 to {_SEEDS - 1}, or empty for a random one")
    return int(value)
