"""Units of the web UI's ControlNet extension, as fields of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triton_diffusers.api.request import ResizeMode
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.dialects.a1111.errors import Unsupported
from triton_diffusers.gateway.dialects.a1111.values import flag, mapping, number, text
from triton_diffusers.preprocess import PREPROCESSORS

FIELD: Final = "alwayson_scripts.ControlNet"

NONE = "none"
# The extension's names; of several methods for one kind of image, those that are the same or of the same network.
_MODULES: Mapping[str, str] = {
    "": NONE,
    "depth_midas": "depth",
    "softedge_hed": "hed",
    "normal_map": "normal",
    "normal_midas": "normal",
    "openpose_body": "openpose",
    "scribble_hed": "scribble",
    "fake_scribble": "scribble",
    "segmentation": "seg",
    "seg_ofade20k": "seg",
    "seg_ufade20k": "seg",
    "lineart_realistic": "lineart",
    "tile_resample": "tile",
}
_RESIZE_MODES: Mapping[Any, ResizeMode] = {
    "Just Resize": ResizeMode.STRETCH,
    "Crop and Resize": ResizeMode.CROP,
    "Resize and Fill": ResizeMode.PAD,
    "Scale to Fit (Inner Fit)": ResizeMode.CROP,
    "Envelope (Outer Fit)": ResizeMode.PAD,
    **{mode.value: mode for mode in ResizeMode},
}
_BALANCED = (None, 0, "Balanced")
_KNOWN = frozenset(
    (
        "enabled",
        "module",
        "model",
        "weight",
        "image",
        "input_image",
        "mask",
        "resize_mode",
        "guidance_start",
        "guidance_end",
        "guidance",
        "control_mode",
        "save_detected_map",
        "processor_res",
        "threshold_a",
        "threshold_b",
        "pixel_perfect",
        "hr_option",
        "low_vram",
        "lowvram",
        "use_preview_as_input",
        "is_ui",
        "input_mode",
    )
)
_WITHOUT_EFFECT = ("processor_res", "threshold_a", "threshold_b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A ControlNet, the preprocessor that makes its control image, and the image (empty: the request's own)."""

    path: str
    module: str
    weight: float
    start: float
    end: float
    image: str
    resize_mode: ResizeMode | None
    returns_map: bool


def module_name(field: str, value: Any) -> str:
    """Return the preprocessor of a module's name. Raises: InvalidRequest."""
    name = text(field, value).strip().lower()
    found = _MODULES.get(name, name)
    if found not in PREPROCESSORS:
        raise InvalidRequest(field, value, f"must be one of: {', '.join(PREPROCESSORS)}")
    return found


def read_units(value: Any, controlnets: Sequence[str], warnings: list[str]) -> list[Unit]:
    """Return the enabled units of the extension's arguments. Raises: InvalidRequest."""
    arguments = mapping(FIELD, value).get("args", ())
    if isinstance(arguments, dict):
        arguments = [arguments]
    if not isinstance(arguments, list | tuple):
        raise InvalidRequest(FIELD, arguments, "args must be a list of units")
    units = []
    for position, each in enumerate(arguments):
        if not isinstance(each, dict):
            if each in (True, False, None):  # switches, which older versions of clients send first
                continue
            raise InvalidRequest(f"{FIELD}.args[{position}]", each, "must be a JSON object")
        if flag(f"{FIELD}.args[{position}].enabled", each.get("enabled", True)):
            units.append(_unit(f"{FIELD}.args[{position}]", each, controlnets, warnings))
    return units


def _unit(field: str, given: Mapping[str, Any], controlnets: Sequence[str], warnings: list[str]) -> Unit:
    sent = {name: value for name, value in given.items() if value is not None}
    image = sent.get("image", sent.get("input_image", ""))
    if isinstance(image, dict):  # an image with the mask that was painted on it
        sent["mask"] = image.get("mask") or ""
        image = image.get("image") or ""
    if sent.get("mask"):
        raise Unsupported(f"{field}.mask", "…", "paint the mask into the control image")
    if sent.get("control_mode") not in _BALANCED:
        raise Unsupported(f"{field}.control_mode", sent["control_mode"], "use Balanced, and another weight")
    module = module_name(f"{field}.module", sent.get("module", NONE))
    warnings.extend(
        f"{field}.{name} has no effect here"
        for name in _WITHOUT_EFFECT
        if module not in (NONE, "tile") and name in sent
    )
    warnings.extend(f"{field}.{name} is unknown and was ignored" for name in sent if name not in _KNOWN)
    mode = sent.get("resize_mode")
    if isinstance(mode, dict | list) or (mode is not None and mode not in _RESIZE_MODES):
        raise InvalidRequest(f"{field}.resize_mode", mode, "must be 0, 1 or 2, or its name")
    return Unit(
        path=_path(f"{field}.model", sent.get("model", ""), controlnets),
        module=module,
        weight=number(f"{field}.weight", sent.get("weight", 1.0)),
        start=number(f"{field}.guidance_start", sent.get("guidance_start", 0.0)),
        end=number(f"{field}.guidance_end", sent.get("guidance_end", 1.0)),
        image=text(f"{field}.image", image),
        resize_mode=None if mode is None else _RESIZE_MODES[mode],
        returns_map=module != NONE and flag(f"{field}.save_detected_map", sent.get("save_detected_map", True)),
    )


def _path(field: str, value: Any, controlnets: Sequence[str]) -> str:
    """Return the path of a model's name, which may lack its folder or have a hash behind it."""
    given = text(field, value).strip()
    wanted = given.rpartition(" [")[0] if given.endswith("]") else given
    if wanted.lower() in ("", NONE):
        raise InvalidRequest(field, value, f"a unit needs a model; known: {', '.join(controlnets) or 'none'}")
    names = (wanted.casefold(), f"controlnets/{wanted}".casefold())
    return next((path for path in controlnets if path.casefold() in names), wanted)


def unit_fields(units: Sequence[Unit], image_for_others: str) -> dict[str, Any]:
    """Return the contract's fields of units; ``image_for_others`` controls those without an image of their own.

    Raises: InvalidRequest: their images are to be fitted in different ways, or one has none.
    """
    images = [unit.image or image_for_others for unit in units]
    if not all(images):
        raise InvalidRequest(f"{FIELD}.args[{images.index('')}].image", "", "a unit needs an image")
    fields: dict[str, Any] = {
        "controlnet_path": [unit.path for unit in units],
        "process_func": [unit.module for unit in units],
        "control_scale": [unit.weight for unit in units],
        "control_start": [unit.start for unit in units],
        "control_end": [unit.end for unit in units],
        "return_control_image": any(unit.returns_map for unit in units),
    }
    links = [image for image in images if is_link(image)]
    if links and len(links) < len(images):
        raise InvalidRequest(f"{FIELD}.args", links[0], "send all images of the units as base64, or all as links")
    fields["control_image_link" if links else "control_image_base64"] = images
    return fields


def common_resize_mode(units: Sequence[Unit]) -> ResizeMode | None:
    """Return how the units' images are fitted; None if no unit says so. Raises: InvalidRequest: they differ."""
    modes = {unit.resize_mode for unit in units if unit.resize_mode is not None and unit.image}
    if len(modes) > 1:
        raise InvalidRequest(f"{FIELD}.args", sorted(modes), "resize_mode must be the same in all units")
    return modes.pop() if modes else None


def is_link(image: str) -> bool:
    """Return True for a URL, which the model fetches."""
    return image[:8].lower().startswith(("http://", "https://"))
