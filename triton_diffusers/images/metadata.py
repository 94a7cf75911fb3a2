"""Metadata of result images: the request that made them.

``parameters`` is the text that Stable Diffusion's image tools read: the prompt, a line ``Negative prompt: …`` and a
line of ``Key: value`` pairs. It cannot escape a prompt that looks like one of its lines; the JSON record is
unambiguous. The record's ``request`` has the API's field names and reproduces this one image.

Neither holds input images, links to them, or paths of the server.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from triton_diffusers.api.request import ControlChoice, Function, GenerationRequest
from triton_diffusers.images.encode import Metadata
from triton_diffusers.sampling.profiles import EXACT

_OWN = "controlnet"  # the model directory's own ControlNet

Size = tuple[int, int]


def metadata_of(request: GenerationRequest, index: int, model: str = "", drawn_size: Size | None = None) -> Metadata:
    """Return both texts for image ``index`` of a request; ``model`` is the checkpoint's name, or empty.

    ``drawn_size`` is the width and height of an image before it was enlarged, if it was.
    """
    return Metadata(parameters_text(request, index, model, drawn_size), record_text(request, index, model, drawn_size))


def parameters_text(request: GenerationRequest, index: int, model: str = "", drawn_size: Size | None = None) -> str:
    """Return the text named ``parameters`` for image ``index`` of a request."""
    width, height = request.size
    pairs: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": request.scheduler,
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed_of(index),
        "Size": f"{width}x{height}",
    }
    if drawn_size:
        pairs["Drawn size"] = "{}x{}".format(*drawn_size)
    # Before the model: readers that split at every comma take the last `Model` for the checkpoint.
    pairs |= {f"ControlNet {index}": _control(control) for index, control in enumerate(request.controls)}
    if model:
        pairs["Model"] = model
    if request.function is not Function.TEXT_TO_IMAGE:
        pairs["Denoising strength"] = f"{request.denoising_strength:g}"
    if request.clip_skip > 1:
        pairs["Clip skip"] = request.clip_skip
    if request.loras:
        pairs["Loras"] = ", ".join(f"{lora.path}:{lora.weight:g}" for lora in request.loras)
    if request.profile != EXACT:
        pairs["Profile"] = request.profile.name
    pairs["Version"] = _program()
    lines = [
        request.prompt,
        f"Negative prompt: {request.negative_prompt}" if request.negative_prompt else "",
        ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items()),
    ]
    # PNG forbids NUL in a text.
    return "\n".join(filter(None, lines)).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _control(control: ControlChoice) -> str:
    """Return the value in the words of those tools' ControlNet extension."""
    words = {
        "Module": control.process,
        "Model": control.path or _OWN,
        "Weight": f"{control.scale:g}",
        "Guidance Start": f"{control.start:g}",
        "Guidance End": f"{control.end:g}",
    }
    return ", ".join(f"{key}: {value}" for key, value in words.items())


def _quoted(value: str) -> str:
    """Return a value, as a JSON string if it contains a separator of pairs."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def record_text(request: GenerationRequest, index: int, model: str = "", drawn_size: Size | None = None) -> str:
    """Return the JSON text named ``triton_diffusers`` (pure ASCII) for image ``index`` of a request."""
    record: dict[str, Any] = {"version": _program(), "task_id": request.task_id, "image_index": index}
    if model:
        record["model"] = model
    if drawn_size:
        record["drawn_size"] = drawn_size
    return json.dumps({**record, "request": request.to_values(index)})


@cache
def _program() -> str:
    return f"triton-diffusers {version('triton-diffusers')}"
