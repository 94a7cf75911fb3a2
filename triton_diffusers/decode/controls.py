"""The ControlNets of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triton_diffusers.decode.checks import between, one_or_each
from triton_diffusers.decode.pictures import pictures
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.preprocess import PREPROCESSORS
from triton_diffusers.request import ControlChoice
from triton_diffusers.settings import Settings

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
