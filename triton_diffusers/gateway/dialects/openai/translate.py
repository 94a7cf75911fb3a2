"""From OpenAI's fields to the contract's, and back in errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from triton_diffusers.api.contract import INPUT_BY_NAME
from triton_diffusers.api.request import Function, ResizeMode
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.dialects.openai.given import Given
from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.image_size import image_size
from triton_diffusers.settings import Settings


class Endpoint(StrEnum):
    """The routes that make images."""

    GENERATIONS = "generations"
    EDITS = "edits"
    VARIATIONS = "variations"


MAX_PARTIAL_IMAGES = 3
AUTO = "auto"

_SIZE = re.compile(r"([0-9]{1,5})[xX×]([0-9]{1,5})")
_ERROR_FIELD = re.compile(r"([a-z_]+): ")

# Names of diffusers, vLLM-Omni and SGLang.
_SYNONYMS = {
    "n": "image_num",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "strength": "denoising_strength",
    "images": "image",
    "url": "image_link",
    "mask_url": "mask_link",
}
# Fields of the contract that are not the caller's here, and what decides them.
_OWN = {
    "func_name": "the path decides",
    **dict.fromkeys(("return_images", "use_base64", "store_images"), "response_format decides"),
}
_PROFILES: Mapping[str, str] = {
    "auto": "",
    "standard": "",
    "low": "fast",
    "medium": "cached",
    "high": "exact",
    "hd": "exact",
    "xhigh": "exact",
    "max": "exact",
}
# Fields of OpenAI's that change nothing here, and the values that ask for nothing.
_WITHOUT_EFFECT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "moderation": (("auto",), "the server's safety checker decides; see safety_action"),
    "style": ((), "describe the style in the prompt"),
    "input_fidelity": ((), "use strength: less of it keeps more of the image"),
}
_ONE_IMAGE = "this model takes one image"
_IDENTITIES = ("user", "safety_identifier")
_MAX_IDENTITY_CHARS = 256


class ResponseFormat(StrEnum):
    """Ways to return images."""

    URL = "url"
    BASE64 = "b64_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Wishes for the reply."""

    response_format: ResponseFormat = ResponseFormat.BASE64
    quality: str = AUTO
    size: str = AUTO
    stream: bool = False
    partial_images: int = 0


@dataclass(slots=True)
class Translation:
    """A request in the contract's fields.

    ``fields`` are as in JSON, ``images`` are uploaded files. ``names`` has the caller's name and value of each field
    that has another name in the contract.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    images: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    model: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    unknown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def set(self, name: str, value: Any, sent_as: str, sent: Any) -> None:
        """Set a field of the contract. Raises ``InvalidRequest`` if another of the caller's fields has set it."""
        if name in self.fields:
            former = self.names.get(name, (name, None))[0]
            raise InvalidRequest(sent_as, sent, f"{former} is the same field; send one of them")
        self.fields[name] = value
        if sent_as != name:
            self.names[name] = sent_as, sent

    def in_callers_words(self, error: InvalidRequest) -> InvalidRequest:
        """Return an error with the caller's name and value of the field."""
        for name in re.split(r" [/×] ", error.field.removesuffix(" with expand")):
            if name in self.names:
                sent_as, sent = self.names[name]
                rule = f"{name} {error.rule}" if error.field in ("width", "height") else error.rule
                return type(error)(sent_as, sent, rule)
        return error

    def fault_in_callers_words(self, fault: Fault) -> Fault:
        """Return the fault of a job that failed, with the caller's name of the field that its message begins with."""
        found = _ERROR_FIELD.match(fault.message)
        if found is None or found[1] not in INPUT_BY_NAME:
            return fault
        name = self.names.get(found[1], (found[1], None))[0]
        return replace(fault, field=name, message=f"{name}: {fault.message[found.end() :]}")


def translate(given: Given, endpoint: Endpoint, settings: Settings) -> Translation:
    """Return the translation of a request. Raises: InvalidRequest: a value cannot be expressed in the contract."""
    made = Translation()
    sent = {name: value for name, value in given.fields.items() if value is not None and value != ""}
    for name, read in _READERS.items():
        if name in sent:
            read(made, name, sent.pop(name), given)
    for name, (neutral, hint) in _WITHOUT_EFFECT.items():
        if name in sent and sent.pop(name) not in neutral:
            made.warnings.append(f"{name} has no effect here; {hint}")
    for name, value in sent.items():
        _set_field(made, name, value, given)
    if endpoint is not Endpoint.GENERATIONS:
        _set_images(made, given, endpoint, settings)
    if endpoint is Endpoint.VARIATIONS:
        made.fields.setdefault("prompt", "")
    return made


def _set_field(made: Translation, name: str, value: Any, given: Given) -> None:
    own = _SYNONYMS.get(name, name)
    if own in ("image", "mask"):  # a URL or a data URL in place of a file
        made.set(f"{own}_link", _link(name, value), name, value)
    elif own in _OWN:
        made.warnings.append(f"{name} has no effect here; {_OWN[own]}")
    elif own not in INPUT_BY_NAME:
        made.unknown.append(name)
    else:
        made.set(own, given.typed(value, INPUT_BY_NAME[own].datatype), name, value)


def _link(name: str, value: Any) -> str:
    """Return the URL of an image in JSON: itself, in a list of one, or as ``image_url`` of an object."""
    if isinstance(value, list):
        if len(value) != 1:
            raise InvalidRequest(name, f"{len(value)} images", _ONE_IMAGE)
        return _link(f"{name}[0]", value[0])
    if isinstance(value, dict):
        if value.get("file_id"):
            raise InvalidRequest(f"{name}.file_id", value["file_id"], "there are no files here; send image_url")
        return _link(f"{name}.image_url", value.get("image_url"))
    if not isinstance(value, str) or not value:
        raise InvalidRequest(name, value, "must be a URL, a data URL or an object with image_url")
    return value


def _set_images(made: Translation, given: Given, endpoint: Endpoint, settings: Settings) -> None:
    """Take the uploaded files, and the image's own size if the caller leaves it open."""
    for name, files in given.files.items():
        if name != "control_image" and len(files) > 1:
            raise InvalidRequest(name, f"{len(files)} files", _ONE_IMAGE)
        made.images[name] = files
    if not made.images.get("image") and not made.fields.keys() & {"image_link", "image_base64"}:
        raise InvalidRequest("image", None, "the field is required")
    masked = "mask" in made.images or bool(made.fields.keys() & {"mask_link", "mask_base64"})
    if masked and endpoint is Endpoint.EDITS:
        made.fields["func_name"] = Function.INPAINT.value
        made.fields.setdefault("mask_channel", "alpha")
    elif masked:
        raise InvalidRequest("mask", "…", "variations take no mask; see edits")
    else:
        made.fields["func_name"] = Function.IMAGE_TO_IMAGE.value
    made.fields.setdefault("resize_mode", ResizeMode.CROP.value)
    if not made.fields.keys() & {"width", "height"} and "image" in made.images:
        _set_own_size(made, made.images["image"][0], settings)


def _set_own_size(made: Translation, image: bytes, settings: Settings) -> None:
    width, height = image_size(image)
    if min(width, height) < 1:
        return  # the model refuses it, and says why
    scale = min(1.0, settings.max_side / max(width, height), math.sqrt(settings.max_pixels / (width * height)))
    for name, side in (("width", width), ("height", height)):
        made.set(name, int(side * scale), "image", f"{width}x{height}")


def _model(made: Translation, name: str, value: Any, given: Given) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(name, value, "must be text")
    made.model = value


def _size(made: Translation, name: str, value: Any, given: Given) -> None:
    if value == AUTO:
        return
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidRequest(name, value, "must be WIDTHxHEIGHT in pixels, such as 512x512, or auto")
    for side, text in (("width", found[1]), ("height", found[2])):
        made.set(side, int(text) or -1, name, value)
    made.options = replace(made.options, size=f"{int(found[1])}x{int(found[2])}")


def _quality(made: Translation, name: str, value: Any, given: Given) -> None:
    made.options = replace(made.options, quality=_choice(name, value, tuple(_PROFILES)))
    if profile := _PROFILES[value]:
        made.set("profile", profile, name, value)


def _background(made: Translation, name: str, value: Any, given: Given) -> None:
    if value == "transparent":
        raise InvalidRequest(name, value, "this model paints every pixel; use opaque or auto")
    _choice(name, value, ("opaque", AUTO))


def _compression(made: Translation, name: str, value: Any, given: Given) -> None:
    number = _whole(name, value, given, 0, 100)
    made.set("output_quality", max(1, number), name, value)


def _response_format(made: Translation, name: str, value: Any, given: Given) -> None:
    chosen = ResponseFormat(_choice(name, value, tuple(ResponseFormat)))
    made.options = replace(made.options, response_format=chosen)


def _stream(made: Translation, name: str, value: Any, given: Given) -> None:
    flag = given.typed(value, "BOOL")
    if not isinstance(flag, bool):
        raise InvalidRequest(name, value, "must be true or false")
    made.options = replace(made.options, stream=flag)


def _partial_images(made: Translation, name: str, value: Any, given: Given) -> None:
    number = _whole(name, value, given, 0, MAX_PARTIAL_IMAGES)
    made.options = replace(made.options, partial_images=number)


def _identity(made: Translation, name: str, value: Any, given: Given) -> None:
    if not isinstance(value, str) or len(value) > _MAX_IDENTITY_CHARS:
        raise InvalidRequest(name, value, f"must be text of at most {_MAX_IDENTITY_CHARS} characters")
    made.tags[name] = value


def _lora(made: Translation, name: str, value: Any, given: Given) -> None:
    """Take a LoRA as vLLM-Omni has it: an object with ``path`` (or ``name``) and ``scale``."""
    path = (value.get("path") or value.get("name")) if isinstance(value, dict) else None
    if not path:
        raise InvalidRequest(name, value, "must be an object with a path, and a scale if it is not 0.75")
    made.set("lora_path", path, name, value)
    if (scale := value.get("scale")) is not None:
        made.set("lora_attn", given.typed(scale, "FP32"), name, value)


def _choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InvalidRequest(name, value, f"must be one of: {', '.join(choices)}")
    return str(value)


def _whole(name: str, value: Any, given: Given, minimum: int, maximum: int) -> int:
    number = given.typed(value, "INT64")
    if isinstance(number, bool) or not isinstance(number, int) or not minimum <= number <= maximum:
        raise InvalidRequest(name, value, f"must be a whole number between {minimum} and {maximum}")
    return number


_READERS: Mapping[str, Callable[[Translation, str, Any, Given], None]] = {
    "model": _model,
    "size": _size,
    "quality": _quality,
    "background": _background,
    "output_compression": _compression,
    "response_format": _response_format,
    "stream": _stream,
    "partial_images": _partial_images,
    "lora": _lora,
    **dict.fromkeys(_IDENTITIES, _identity),
}
