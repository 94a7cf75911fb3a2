"""What the fields of a request are checked with; all raise ``InvalidRequest``, with field, value and limit."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from triton_diffusers.api.base64 import check_size, decode_base64, decode_data_url, is_data_url
from triton_diffusers.api.request import (
    SEEDS,
    ControlChoice,
    DataUrl,
    Expansion,
    Fill,
    FromBase64,
    Function,
    GenerationRequest,
    Link,
    LoraChoice,
    OutputFormat,
    PictureSource,
    ResizeMode,
    SafetyAction,
)
from triton_diffusers.api.save_dir import check_save_dir
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.preprocess import PREPROCESSORS
from triton_diffusers.sampling.profiles import PROFILES, Profile
from triton_diffusers.sampling.schedulers import scheduler_name
from triton_diffusers.settings import Settings

Choice = TypeVar("Choice", Function, OutputFormat, Fill, SafetyAction)
T = TypeVar("T")


def between(field: str, value: Any, low: Any, high: Any) -> Any:
    """The value, if it is neither less than ``low`` nor more than ``high``."""
    # Written so that NaN, which compares false with everything, is refused.
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low} and {high}")
    return value


def choice(field: str, value: str, choices: type[Choice]) -> Choice:
    """The member of ``choices`` whose name on the wire the value is."""
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise InvalidRequest(field, value, f"must be one of: {known}") from None


def one_or_each(field: str, values: Sequence[T], default: T, number: int, things: str) -> Sequence[T]:
    """A value for each of so many things: one stands for all, none for the default."""
    if len(values) not in (0, 1, number):
        raise InvalidRequest(field, values, f"one value, or one for each of the {number} {things}")
    return values if len(values) == number else tuple(values or (default,)) * number


def picture(
    name: str, values: Mapping[str, Any], settings: Settings, *, wanted: bool, taker: str
) -> PictureSource | None:
    """The one of a picture's three fields that was sent; None if what is asked for, ``taker``, takes none."""
    fields = _fields(name)
    given = [field for field in fields if values[field]]
    if not wanted and given:
        raise InvalidRequest(given[0], values[given[0]], f"{taker} takes no {name}; see func_name")
    if not wanted:
        return None
    if len(given) != 1:
        raise InvalidRequest(" / ".join(fields), given, f"{taker} needs exactly one of the three")
    return _source(given[0], values[given[0]], settings)


def pictures(
    name: str, values: Mapping[str, Any], settings: Settings, *, number: int, things: str
) -> tuple[PictureSource | None, ...]:
    """A picture for each of so many things, of three list fields; all None if none was sent.

    Together they may have as many bytes as a single picture.
    """
    fields = _fields(name)
    given = [field for field in fields if any(values[field])]
    if not given:
        return (None,) * number
    if len(given) > 1:
        raise InvalidRequest(" / ".join(fields), given, "at most one of the three")
    (field,) = given
    each = one_or_each(field, values[field], None, number, things)
    sources: dict[Any, PictureSource] = {}
    for value in dict.fromkeys(each):
        sources[value] = _source(field, value, settings)
        check_size(field, sum(map(_size, sources.values())), settings)
    return tuple(sources[value] for value in each)


def _fields(name: str) -> tuple[str, str, str]:
    return name, f"{name}_base64", f"{name}_link"


def _size(source: PictureSource) -> int:
    """Bytes of it that the request brought."""
    if isinstance(source, Link):
        return 0
    return len(source if isinstance(source, bytes) else source.data)


def _source(field: str, value: Any, settings: Settings) -> PictureSource:
    if field.endswith("_link"):
        return DataUrl(decode_data_url(field, value, settings)) if is_data_url(value) else Link(value)
    if field.endswith("_base64"):
        return FromBase64(decode_base64(field, value, settings))
    check_size(field, len(value), settings)
    return bytes(value)


_LARGEST_SCALE = 10.0
_THINGS = "ControlNets"


def controls(values: Mapping[str, Any], settings: Settings) -> tuple[ControlChoice, ...]:
    """At least one, since no path is the path of the model directory's own."""
    paths = values["controlnet_path"] or ("",)
    number = len(paths)
    if number > settings.max_controlnets:
        raise InvalidRequest("controlnet_path", f"{number} {_THINGS}", f"at most {settings.max_controlnets}")
    processes = one_or_each("process_func", values["process_func"], "", number, _THINGS)
    scales = _numbers("control_scale", values, number, default=1.0, most=_LARGEST_SCALE)
    starts = _numbers("control_start", values, number, default=0.0, most=1.0)
    ends = _numbers("control_end", values, number, default=1.0, most=1.0)
    for start, end in zip(starts, ends, strict=True):
        if start >= end:
            raise InvalidRequest("control_start / control_end", f"{start} to {end}", "must begin before it ends")
    images = pictures("control_image", values, settings, number=number, things=_THINGS)
    return tuple(
        ControlChoice(path=path, process=_process(process), scale=scale, start=start, end=end, image=image)
        for path, process, scale, start, end, image in zip(paths, processes, scales, starts, ends, images, strict=True)
    )


def _numbers(field: str, values: Mapping[str, Any], number: int, *, default: float, most: float) -> list[float]:
    each = one_or_each(field, values[field], default, number, _THINGS)
    return [between(field, value, 0.0, most) for value in each]


def _process(name: str) -> str:
    name = name or "none"  # JSON callers write "" for none
    if name not in PREPROCESSORS:
        raise InvalidRequest("process_func", name, f"known: {', '.join(PREPROCESSORS)}")
    return name


_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SEED = re.compile(r"[0-9]{1,20}")
_SMALLEST_SIDE = 16
_LARGEST_GUIDANCE = 30.0
_MOST_LAYERS = 24  # of a text encoder; how many a model has is known to its engine
_EXPAND = (128, 128, 128, 128)
_LORA_WEIGHT = 0.75
_MOST_WARNINGS = 8  # of the translator


def decode_request(values: Mapping[str, Any], settings: Settings, native_side: int) -> GenerationRequest:
    """The request that the fields' values make; raises ``InvalidRequest`` for the first that is not right.

    ``values`` has every field of the model, as ``read_values`` gives them; a model that has the fields of ControlNets
    always uses some. ``native_side`` is the width and height, in pixels, of a picture of no stated size.
    """
    if any(values["use_translate"]):
        raise InvalidRequest(
            "use_translate", True, "this model takes prompts as they are; send the request to the ensemble"
        )
    function = choice("func_name", values["func_name"], Function)
    chosen = controls(values, settings) if "controlnet_path" in values else ()
    most_images = min(settings.max_image_num, settings.max_images_in_flight)
    width, height = (
        between(side, values[side] or native_side, _SMALLEST_SIDE, settings.max_side) for side in ("width", "height")
    )
    request = GenerationRequest(
        warnings=values.get("translator_warnings", ())[:_MOST_WARNINGS],
        task_id=_task_id(values["task_id"]),
        prompt=_prompt("prompt", values["prompt"], settings),
        negative_prompt=_prompt("negative_prompt", values["negative_prompt"], settings),
        function=function,
        steps=between("steps", values["steps"], 1, settings.max_steps),
        guidance_scale=between("cfg_scale", values["cfg_scale"], 1.0, _LARGEST_GUIDANCE),
        width=width,
        height=height,
        seed=_seed(values["seed"]),
        image_num=between("image_num", values["image_num"], 1, most_images),
        scheduler=scheduler_name(values["scheduler"]),
        output_format=choice("output_format", values["output_format"], OutputFormat),
        clip_skip=between("clip_skip", values["clip_skip"], 1, _MOST_LAYERS),
        image=_image(values, settings, function, chosen),
        mask=picture("mask", values, settings, wanted=function is Function.INPAINT, taker=function.value),
        resize_mode=ResizeMode(between("resize_mode", values["resize_mode"], min(ResizeMode), max(ResizeMode))),
        denoising_strength=between("denoising_strength", values["denoising_strength"], 0.0, 1.0),
        expansion=_expansion(values, settings) if function is Function.OUTPAINT else None,
        keep_unmasked=values["keep_unmasked"],
        loras=_loras(values["lora_path"], values["lora_attn"], settings),
        controls=chosen,
        return_control_image=values.get("return_control_image", False),
        profile=_profile(values["profile"] or settings.profile),
        save_dir=check_save_dir(values["save_dir"]),
        embed_metadata=values["embed_metadata"],
        safety_action=_safety_action(values["safety_action"], settings),
        timeout_seconds=between("timeout_seconds", values["timeout_seconds"], 0.0, math.inf),
    )
    _check_size(request, settings)
    return request


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
    if not _SEED.fullmatch(value) or int(value) >= SEEDS:
        raise InvalidRequest("seed", value, f"a whole number from 0 to {SEEDS - 1}, or empty for a random one")
    return int(value)


def _image(
    values: Mapping[str, Any], settings: Settings, function: Function, chosen: Sequence[ControlChoice]
) -> PictureSource | None:
    """The input picture; of text to image, what controls it if no control picture was sent."""
    wanted, taker = function is not Function.TEXT_TO_IMAGE, function.value
    if chosen and not wanted:
        wanted = any(control.image is None for control in chosen)
        taker += " without control_image" if wanted else " with control_image"
    return picture("image", values, settings, wanted=wanted, taker=taker)


def _expansion(values: Mapping[str, Any], settings: Settings) -> Expansion:
    sides = values["expand"] or _EXPAND
    if len(sides) != len(_EXPAND):
        raise InvalidRequest("expand", sides, "must be four whole numbers: left, right, up, down")
    if not any(sides):
        raise InvalidRequest("expand", sides, "at least one side must grow")
    left, right, up, down = (between("expand", side, 0, settings.max_side) for side in sides)
    return Expansion(left=left, right=right, up=up, down=down, fill=choice("expand_type", values["expand_type"], Fill))


def _loras(paths: Sequence[str], weights: Sequence[float], settings: Settings) -> tuple[LoraChoice, ...]:
    paths = tuple(path for path in paths if path)  # JSON callers write "" for none
    if len(paths) > settings.max_loras:
        raise InvalidRequest("lora_path", f"{len(paths)} LoRAs", f"at most {settings.max_loras}")
    most = settings.max_lora_weight
    for weight in weights:
        between("lora_attn", weight, -most, most)
    if not paths:
        return ()
    each = one_or_each("lora_attn", weights, _LORA_WEIGHT, len(paths), "LoRAs")
    return tuple(LoraChoice(path, weight) for path, weight in zip(paths, each, strict=True))


def _safety_action(value: str, settings: Settings) -> SafetyAction:
    if not value:
        return SafetyAction.FLAG if settings.safety_action == "flag" else SafetyAction.BLACKEN
    action = choice("safety_action", value, SafetyAction)
    if action is SafetyAction.FLAG and settings.safety_action == "blacken":
        raise InvalidRequest("safety_action", value, "this server blackens flagged images; its operator may allow it")
    return action


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
