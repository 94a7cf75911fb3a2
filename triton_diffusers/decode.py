"""Decoding a request: tensors in, a valid ``GenerationRequest`` out. Past this module nothing is unchecked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from triton_diffusers.contract import INPUTS, Input
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.pictures import check_size, decode_base64
from triton_diffusers.profiles import PROFILES, Profile
from triton_diffusers.request import (
    Expansion,
    Fill,
    Function,
    GenerationRequest,
    Link,
    LoraChoice,
    OutputFormat,
    PictureSource,
    ResizeMode,
)
from triton_diffusers.schedulers import scheduler_name
from triton_diffusers.settings import Settings
from triton_diffusers.storage.names import check_save_dir

Array = np.ndarray[Any, Any]

_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SEED = re.compile(r"[0-9]{1,20}")
_SEEDS = 2**64
_SMALLEST_SIDE = 16
_LARGEST_GUIDANCE = 30.0
_SMALLEST_STRENGTH = 0.1
_MOST_LAYERS = 24  # of a text encoder; how many a model has is known to its engine
_EXPAND = (128, 128, 128, 128)
_LORA_WEIGHT = 0.75

Choice = TypeVar("Choice", Function, OutputFormat, Fill)


def decode_request(tensors: Mapping[str, Array], settings: Settings, native_side: int) -> GenerationRequest:
    """Decode the inputs that were sent; raises ``InvalidRequest`` for the first that is not right.

    ``tensors`` has arrays of shape (1, n), as Triton hands them out: BYTES as objects, the others by their type.
    ``native_side`` is the width and height, in pixels, of a picture of no stated size.
    """
    values = read_values(tensors, INPUTS)
    if any(values["use_translate"]):
        raise InvalidRequest(
            "use_translate", True, "this model takes prompts as they are; send the request to the ensemble"
        )
    function = _choice("func_name", values["func_name"], Function)
    most_images = min(settings.max_image_num, settings.max_images_in_flight)
    width, height = (
        _between(side, values[side] or native_side, _SMALLEST_SIDE, settings.max_side) for side in ("width", "height")
    )
    request = GenerationRequest(
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
        clip_skip=_between("clip_skip", values["clip_skip"], 1, _MOST_LAYERS),
        image=_picture("image", values, settings, wanted=function is not Function.TEXT_TO_IMAGE, function=function),
        mask=_picture("mask", values, settings, wanted=function is Function.INPAINT, function=function),
        resize_mode=ResizeMode(_between("resize_mode", values["resize_mode"], min(ResizeMode), max(ResizeMode))),
        denoising_strength=max(
            _SMALLEST_STRENGTH, _between("denoising_strength", values["denoising_strength"], 0.0, 1.0)
        ),
        expansion=_expansion(values, settings) if function is Function.OUTPAINT else None,
        keep_unmasked=values["keep_unmasked"],
        loras=_loras(values["lora_path"], values["lora_attn"], settings),
        profile=_profile(values["profile"] or settings.profile),
        save_dir=check_save_dir(values["save_dir"]),
        embed_metadata=values["embed_metadata"],
    )
    _check_size(request, settings)
    return request


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
    if field.datatype == "BYTES":
        return bytes(element) if isinstance(element, bytes) else str(element).encode()
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


def _picture(
    name: str, values: Mapping[str, Any], settings: Settings, *, wanted: bool, function: Function
) -> PictureSource | None:
    """The one of a picture's three fields that was sent; None if the function takes no such picture."""
    fields = (name, f"{name}_base64", f"{name}_link")
    given = [field for field in fields if values[field]]
    if not wanted and given:
        raise InvalidRequest(given[0], values[given[0]], f"{function.value} takes no {name}; see func_name")
    if not wanted:
        return None
    if len(given) != 1:
        raise InvalidRequest(" / ".join(fields), given, f"{function.value} needs exactly one of the three")
    value = values[given[0]]
    if given[0].endswith("_link"):
        return Link(value)
    if given[0].endswith("_base64"):
        return decode_base64(given[0], value, settings)
    check_size(name, len(value), settings)
    return bytes(value)


def _expansion(values: Mapping[str, Any], settings: Settings) -> Expansion:
    sides = values["expand"] or _EXPAND
    if len(sides) != len(_EXPAND):
        raise InvalidRequest("expand", sides, "must be four whole numbers: left, right, up, down")
    if not any(sides):
        raise InvalidRequest("expand", sides, "at least one side must grow")
    left, right, up, down = (_between("expand", side, 0, settings.max_side) for side in sides)
    return Expansion(left=left, right=right, up=up, down=down, fill=_choice("expand_type", values["expand_type"], Fill))


def _loras(paths: Sequence[str], weights: Sequence[float], settings: Settings) -> tuple[LoraChoice, ...]:
    paths = tuple(path for path in paths if path)  # JSON callers write "" for none
    if len(paths) > settings.max_loras:
        raise InvalidRequest("lora_path", f"{len(paths)} LoRAs", f"at most {settings.max_loras}")
    if len(weights) not in (0, 1, len(paths)) and paths:
        raise InvalidRequest("lora_attn", weights, f"one weight, or one for each of the {len(paths)} LoRAs")
    most = settings.max_lora_weight
    for weight in weights:
        _between("lora_attn", weight, -most, most)
    each = weights if len(weights) == len(paths) else tuple(weights or (_LORA_WEIGHT,)) * len(paths)
    return tuple(LoraChoice(path, weight) for path, weight in zip(paths, each, strict=True))


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise InvalidRequest("profile", name, f"must be one of: {', '.join(PROFILES)}")
    return PROFILES[name]


def _check_size(request: GenerationRequest, settings: Settings) -> None:
    width, height = request.size
    what = "width × height" if request.expansion is None else "width × height with expand"
    if max(width, height) > settings.max_side:
        raise InvalidRequest(what, f"{width}×{height}", f"at most {settings.max_side} pixels a side")
    if width * height > settings.max_pixels:
        raise InvalidRequest(what, f"{width}×{height}", f"at most {settings.max_pixels} pixels")
