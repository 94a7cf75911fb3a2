"""Decoding: tensors to the fields' values, and values to a ``GenerationRequest`` that is valid in every field.

Bounds and choices are those of the contract's tables. Functions raise ``InvalidRequest`` with field, value and rule.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import numpy as np

from triton_diffusers.api.base64 import check_size, decode_base64, decode_data_url, is_data_url
from triton_diffusers.api.contract import INPUT_BY_NAME, Input
from triton_diffusers.api.request import (
    SEEDS,
    ControlChoice,
    DataUrl,
    Expansion,
    Fill,
    FromBase64,
    Function,
    GenerationRequest,
    ImageSource,
    Link,
    LoraChoice,
    ModelDefaults,
    SafetyAction,
)
from triton_diffusers.api.save_dir import check_save_dir
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.sampling.schedulers import scheduler_name
from triton_diffusers.settings import Settings

Array = np.ndarray[Any, Any]
T = TypeVar("T")

# Guards the shared decoding thread against lists of millions of elements; far above every field's own limit.
_MAX_ELEMENTS = 1024
_MAX_TRANSLATOR_WARNINGS = 8
_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SEED = re.compile(r"[0-9]{1,20}")
_EXPAND = (128, 128, 128, 128)
_LORA_WEIGHT = 0.75
_CONTROLNETS = "ControlNets"

# Attributes of a request whose value depends on more than their field.
_DERIVED = frozenset(
    {
        "task_id",
        "steps",
        "width",
        "height",
        "seed",
        "scheduler",
        "image",
        "mask",
        "profile",
        "save_dir",
        "safety_action",
    }
)
# All others have the name of their field, and their type converts its value: a new one needs no line here.
_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    name: kind
    for name, kind in get_type_hints(GenerationRequest).items()
    if name in INPUT_BY_NAME and name not in _DERIVED
}


def read_values(tensors: Mapping[str, Array], fields: tuple[Input, ...]) -> dict[str, Any]:
    """Return the value of each field in Python's types: the default of an absent field, a tuple for a list.

    ``tensors`` has arrays of shape (1, n), as Triton provides them: BYTES as objects, the others by their type.

    Raises:
        InvalidRequest: a required field is missing, there is a second row, a list is too long, or text is not UTF-8.
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
    # Read the float32 of 0.55 as 0.55, not as 0.550000011920929.
    "FP32": lambda number: float(np.format_float_positional(number, unique=True)),
    "BOOL": bool,
}


def _read(field: Input, array: Array) -> Any:
    if field.many:
        if array.ndim > 1 and array.shape[0] != 1:
            raise InvalidRequest(field.name, f"{array.shape[0]} rows", "send each image's request by itself")
        if array.size > _MAX_ELEMENTS:
            raise InvalidRequest(field.name, f"{array.size} values", f"at most {_MAX_ELEMENTS}")
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


def check(field: Input, value: Any, settings: Settings) -> Any:
    """Return a field's value (of a list: all its values) if it is within the contract's limits; a default always is."""
    limit = field.max_length(settings)
    if limit is not None and isinstance(value, str | tuple) and len(value) > limit:
        things = "values" if field.many else "characters"
        raise InvalidRequest(field.name, f"{len(value)} {things}", f"at most {limit}")
    bounds = field.bounds(settings)
    for each in value if isinstance(value, tuple) else (value,):
        if each == field.default:
            continue
        if field.choices and each not in field.choices:
            raise InvalidRequest(field.name, each, f"must be one of: {', '.join(field.choices)}")
        # Written so that NaN, which compares false with everything, is refused.
        if bounds and not bounds[0] <= each <= bounds[1]:
            raise InvalidRequest(field.name, each, f"must be between {bounds[0]} and {bounds[1]}")
    return value


def decode_request(values: Mapping[str, Any], settings: Settings, defaults: ModelDefaults) -> GenerationRequest:
    """Return the request that the fields' values make.

    ``values`` has every field of the model, as ``read_values`` returns them; a request to a model with the fields of
    ControlNets always uses at least one. ``defaults`` replace the values that stand for the model's own.

    Raises:
        InvalidRequest: for the first field that is invalid.
    """

    def checked(name: str) -> Any:
        return check(INPUT_BY_NAME[name], values[name], settings)

    if any(values["use_translate"]):
        raise InvalidRequest(
            "use_translate", True, "this model takes prompts as they are; send the request to the ensemble"
        )
    function = Function(checked("func_name"))
    chosen = _controls(values, settings) if "controlnet_path" in values else ()
    request = GenerationRequest(
        **{name: kind(checked(name)) for name, kind in _PLAIN.items() if name in values},
        warnings=values.get("translator_warnings", ())[:_MAX_TRANSLATOR_WARNINGS],
        task_id=_task_id(values["task_id"]),
        function=function,
        steps=checked("steps") or min(defaults.steps, settings.max_steps),
        guidance_scale=checked("cfg_scale") or defaults.guidance_scale,
        width=checked("width") or defaults.side,
        height=checked("height") or defaults.side,
        seed=_seed(values["seed"]),
        scheduler=scheduler_name(values["scheduler"]) if values["scheduler"] else defaults.scheduler,
        image=_image(values, settings, function, chosen),
        mask=_one_image("mask", values, settings, wanted=function is Function.INPAINT, taker=function.value),
        expansion=_expansion(values, settings) if function is Function.OUTPAINT else None,
        loras=_loras(values["lora_path"], checked("lora_attn"), settings),
        controls=chosen,
        profile=PROFILES[checked("profile") or settings.profile],
        save_dir=check_save_dir(values["save_dir"]),
        safety_action=_safety_action(checked("safety_action"), settings),
    )
    _check_size(request, settings)
    return request


def _task_id(value: str) -> str:
    if not _TASK_ID.fullmatch(value):
        raise InvalidRequest(
            "task_id", value, "1 to 128 letters, digits, '.', '_' or '-', and no '.' at the start (it names files)"
        )
    return value


def _seed(value: str) -> int:
    if value in ("", "-1"):  # -1 is what many tools send for "random"
        return secrets.randbits(64)
    if not _SEED.fullmatch(value) or int(value) >= SEEDS:
        raise InvalidRequest("seed", value, f"a whole number from 0 to {SEEDS - 1}, or empty for a random one")
    return int(value)


def _image(
    values: Mapping[str, Any], settings: Settings, function: Function, chosen: Sequence[ControlChoice]
) -> ImageSource | None:
    """Return the input image; of text to image, the one that controls it if no control image was sent."""
    wanted, taker = function is not Function.TEXT_TO_IMAGE, function.value
    if chosen and not wanted:
        wanted = any(control.image is None for control in chosen)
        taker += " without control_image" if wanted else " with control_image"
    return _one_image("image", values, settings, wanted=wanted, taker=taker)


def _expansion(values: Mapping[str, Any], settings: Settings) -> Expansion:
    sides = values["expand"] or _EXPAND
    if len(sides) != len(_EXPAND):
        raise InvalidRequest("expand", sides, "must be four whole numbers: left, right, up, down")
    if not any(sides):
        raise InvalidRequest("expand", sides, "at least one side must grow")
    left, right, up, down = check(INPUT_BY_NAME["expand"], sides, settings)
    fill = Fill(check(INPUT_BY_NAME["expand_type"], values["expand_type"], settings))
    return Expansion(left=left, right=right, up=up, down=down, fill=fill)


def _loras(paths: Sequence[str], weights: Sequence[float], settings: Settings) -> tuple[LoraChoice, ...]:
    named = tuple(path for path in paths if path)  # JSON callers write "" for none
    check(INPUT_BY_NAME["lora_path"], named, settings)
    if not named:
        return ()
    each = _one_or_each("lora_attn", weights, _LORA_WEIGHT, len(named), "LoRAs")
    return tuple(LoraChoice(path, weight) for path, weight in zip(named, each, strict=True))


def _safety_action(value: str, settings: Settings) -> SafetyAction:
    if not value:
        return SafetyAction.FLAG if settings.safety_action == "flag" else SafetyAction.BLACKEN
    action = SafetyAction(value)
    if action is SafetyAction.FLAG and settings.safety_action == "blacken":
        raise InvalidRequest("safety_action", value, "this server blackens flagged images; its operator may allow it")
    return action


def _check_size(request: GenerationRequest, settings: Settings) -> None:
    width, height = request.size
    name = "width × height" if request.expansion is None else "width × height with expand"
    if max(width, height) > settings.max_side:
        raise InvalidRequest(name, f"{width}×{height}", f"at most {settings.max_side} pixels a side")
    if width * height > settings.max_pixels:
        raise InvalidRequest(name, f"{width}×{height}", f"at most {settings.max_pixels} pixels")


def _controls(values: Mapping[str, Any], settings: Settings) -> tuple[ControlChoice, ...]:
    """Return the ControlNets of a request; one without a path is the model directory's own."""
    paths = check(INPUT_BY_NAME["controlnet_path"], values["controlnet_path"], settings) or ("",)
    number = len(paths)

    def each_of(name: str, default: Any) -> Sequence[Any]:
        spread = _one_or_each(name, values[name], default, number, _CONTROLNETS)
        # JSON callers write "" for the default.
        each = tuple(default if value == "" else value for value in spread)
        check(INPUT_BY_NAME[name], each, settings)
        return each

    processes = each_of("process_func", "none")
    scales = each_of("control_scale", 1.0)
    starts = each_of("control_start", 0.0)
    ends = each_of("control_end", 1.0)
    for start, end in zip(starts, ends, strict=True):
        if start >= end:
            raise InvalidRequest("control_start / control_end", f"{start} to {end}", "must begin before it ends")
    images = _list_images("control_image", values, settings, number=number, things=_CONTROLNETS)
    return tuple(
        ControlChoice(path=path, process=process, scale=scale, start=start, end=end, image=image)
        for path, process, scale, start, end, image in zip(paths, processes, scales, starts, ends, images, strict=True)
    )


def _one_or_each(field: str, values: Sequence[T], default: T, number: int, things: str) -> Sequence[T]:
    """Return ``number`` values: a single one is repeated, and none stands for the default."""
    if len(values) not in (0, 1, number):
        raise InvalidRequest(field, values, f"one value, or one for each of the {number} {things}")
    return values if len(values) == number else tuple(values or (default,)) * number


def _one_image(
    name: str, values: Mapping[str, Any], settings: Settings, *, wanted: bool, taker: str
) -> ImageSource | None:
    """Return the image of the one field of three that was sent; None if the function, ``taker``, takes no image."""
    fields = _fields(name)
    given = [field for field in fields if values[field]]
    if not wanted and given:
        raise InvalidRequest(given[0], values[given[0]], f"{taker} takes no {name}; see func_name")
    if not wanted:
        return None
    if len(given) != 1:
        raise InvalidRequest(" / ".join(fields), given, f"{taker} needs exactly one of the three")
    return _source(given[0], values[given[0]], settings)


def _list_images(
    name: str, values: Mapping[str, Any], settings: Settings, *, number: int, things: str
) -> tuple[ImageSource | None, ...]:
    """Return ``number`` images of the one list field of three that was sent; all None if none was.

    Together they may have as many bytes as a single image.
    """
    fields = _fields(name)
    given = [field for field in fields if any(values[field])]
    if not given:
        return (None,) * number
    if len(given) > 1:
        raise InvalidRequest(" / ".join(fields), given, "at most one of the three")
    (field,) = given
    each = _one_or_each(field, values[field], None, number, things)
    sources: dict[Any, ImageSource] = {}
    for value in dict.fromkeys(each):
        sources[value] = _source(field, value, settings)
        check_size(field, sum(map(_size, sources.values())), settings)
    return tuple(sources[value] for value in each)


def _fields(name: str) -> tuple[str, str, str]:
    return name, f"{name}_base64", f"{name}_link"


def _size(source: ImageSource) -> int:
    """Return the bytes of an image that came in the request itself."""
    if isinstance(source, Link):
        return 0
    return len(source if isinstance(source, bytes) else source.data)


def _source(field: str, value: Any, settings: Settings) -> ImageSource:
    if field.endswith("_link"):
        return DataUrl(decode_data_url(field, value, settings)) if is_data_url(value) else Link(value)
    if field.endswith("_base64"):
        return FromBase64(decode_base64(field, value, settings))
    check_size(field, len(value), settings)
    return bytes(value)
