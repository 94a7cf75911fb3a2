"""From the web UI's fields to the contract's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from triton_diffusers.api.base64 import decode_base64
from triton_diffusers.api.request import Function, ResizeMode
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.dialects.a1111 import units as controlnet
from triton_diffusers.gateway.dialects.a1111.errors import Unsupported
from triton_diffusers.gateway.dialects.a1111.options import Options, unknown_options
from triton_diffusers.gateway.dialects.a1111.pixels import MaskOptions, Patch, Size, prepare
from triton_diffusers.gateway.dialects.a1111.samplers import contract_scheduler
from triton_diffusers.gateway.dialects.a1111.styles import Style, styled
from triton_diffusers.gateway.dialects.a1111.values import flag, mapping, number, text, whole
from triton_diffusers.gateway.submission import ASSUMED
from triton_diffusers.settings import Settings

# Options that this server does not have, and the values that ask for nothing.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "enable_hr": (False,),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "firstpass_image": ("",),
    "restore_faces": (False,),
    "tiling": (False,),
    "disable_extra_networks": (False,),
    "subseed_strength": (0,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "script_name": ("", "None"),
    "refiner_checkpoint": ("", "None"),
    "eta": (0, 1),
    "s_churn": (0,),
    "s_tmin": (0,),
    "s_noise": (1,),
    "s_min_uncond": (0,),
    "initial_noise_multiplier": (1,),
    "latent_mask": ("",),
    "infotext": ("",),
}
_HINTS: Mapping[str, str] = {
    "enable_hr": "ask for the size itself; the operator's setting ENLARGE draws large images small",
    "disable_extra_networks": "leave the tags out of the prompt",
    "infotext": "send its values as fields",
    "subseed_strength": "use another seed",
}
# Fields that need no reader here: of the server's disk, of the user interface, or of an option that is off.
_HARMLESS = frozenset(
    (
        "do_not_save_samples",
        "do_not_save_grid",
        "save_images",
        "send_images",
        "include_init_images",
        "script_args",
        "subseed",
        "refiner_switch_at",
        "s_tmax",
        "image_cfg_scale",
        "mask_round",
        "override_settings",
        "clip_skip",
        "override_settings_restore_afterwards",
        "force_task_id",
        "comments",
        "hr_scale",
        "hr_upscaler",
        "hr_second_pass_steps",
        "hr_resize_x",
        "hr_resize_y",
        "hr_checkpoint_name",
        "hr_sampler_name",
        "hr_scheduler",
        "hr_prompt",
        "hr_negative_prompt",
        "hr_cfg",
        "hr_additional_modules",
        "denoising_strength",
    )
)
_READ = frozenset(
    (
        "prompt",
        "negative_prompt",
        "styles",
        "seed",
        "sampler_name",
        "sampler_index",
        "scheduler",
        "batch_size",
        "n_iter",
        "steps",
        "cfg_scale",
        "width",
        "height",
        "alwayson_scripts",
    )
)
_READ_OF_IMAGES = frozenset(
    (
        "init_images",
        "mask",
        "mask_blur",
        "mask_blur_x",
        "mask_blur_y",
        "inpainting_fill",
        "inpaint_full_res",
        "inpaint_full_res_padding",
        "inpainting_mask_invert",
        "resize_mode",
    )
)
KNOWN = _READ | _READ_OF_IMAGES | _HARMLESS | _UNSUPPORTED.keys()
"""Fields that a request may have."""

_FILL, _ORIGINAL, _LATENT_NOISE, _LATENT_NOTHING = range(4)
_LATENT_UPSCALE = 3
_SEEDS = 2**32  # as in the web UI; JavaScript's numbers hold no 64 bits
# The contract's field, and the caller's name of it.
_NAMES: Mapping[str, str] = {
    "image_num": "batch_size × n_iter",
    "image": "init_images",
    "image_base64": "init_images",
    "image_link": "init_images",
    "mask_base64": "mask",
    "scheduler": "sampler_name",
    "controlnet_path": f"{controlnet.FIELD}.model",
    "process_func": f"{controlnet.FIELD}.module",
    "control_scale": f"{controlnet.FIELD}.weight",
    "control_image_base64": f"{controlnet.FIELD}.image",
    "control_image_link": f"{controlnet.FIELD}.image",
    "control_start / control_end": f"{controlnet.FIELD}.guidance_start / guidance_end",
    "lora_path": "prompt",
}


@dataclass(slots=True)
class Translation:
    """A request in the contract's fields, with what its reply needs."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    batch_size: int = 1
    patch: Patch | None = None
    returns_maps: bool = False

    def in_callers_words(self, error: InvalidRequest) -> InvalidRequest:
        """Return an error with the caller's name of the field."""
        named = copy(error)
        named.field = _NAMES.get(error.field, error.field)
        named.args = (f"{named.field}: {error.value} is invalid: {error.rule}",)
        return named


def translate(
    document: Mapping[str, Any],
    options: Options,
    styles: Mapping[str, Style],
    settings: Settings,
    *,
    with_image: bool,
) -> Translation:
    """Return the translation of a request; ``with_image``: of ``img2img``.

    Raises: InvalidRequest: a value is invalid or unsupported. NotFound: the sampler or the image is missing.
    """
    sent = {name: value for name, value in document.items() if value is not None}
    made = Translation()
    for name, neutral in _UNSUPPORTED.items():
        if name in sent and sent[name] not in neutral:
            raise Unsupported(name, sent[name], _HINTS.get(name, ""))
    _set_prompts(made, sent, styles)
    _set_sampling(made, sent, options)
    if with_image:
        _set_image(made, sent, options, settings)
    _set_scripts(made, sent, options, with_image=with_image)
    known = KNOWN if with_image else KNOWN - _READ_OF_IMAGES
    made.warnings += [f"{name} is unknown and was ignored" for name in sent if name not in known]
    overrides = mapping("override_settings", sent.get("override_settings", {}))
    made.warnings += [f"override_settings.{name} has no effect here" for name in unknown_options(overrides)]
    return made


def _set_prompts(made: Translation, sent: Mapping[str, Any], styles: Mapping[str, Style]) -> None:
    names = sent.get("styles", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequest("styles", names, "must be a list of names")
    found = [styles[name] for name in names if name in styles]
    made.warnings += [f"styles: {name!r:.80} is unknown and was ignored" for name in names if name not in styles]
    made.styles = [style.name for style in found]
    prompt = styled(text("prompt", sent.get("prompt", "")), [style.prompt for style in found])
    negative = text("negative_prompt", sent.get("negative_prompt", ""))
    made.fields["prompt"] = prompt
    made.fields["negative_prompt"] = styled(negative, [style.negative_prompt for style in found])


def _set_sampling(made: Translation, sent: Mapping[str, Any], options: Options) -> None:
    made.batch_size = whole("batch_size", sent.get("batch_size", 1), 1)
    made.fields["image_num"] = made.batch_size * whole("n_iter", sent.get("n_iter", 1), 1)
    seed = whole("seed", sent.get("seed", -1), -1, 2**64 - 1)
    made.fields["seed"] = str(secrets.randbelow(_SEEDS) if seed == -1 else seed)
    for name in ("steps", "width", "height"):
        if name in sent:
            made.fields[name] = whole(name, sent[name], 1)
    if "cfg_scale" in sent:
        made.fields["cfg_scale"] = number("cfg_scale", sent["cfg_scale"], 1)
    sampler = text("sampler_name", sent.get("sampler_name") or sent.get("sampler_index", ""))
    made.fields["scheduler"] = contract_scheduler(sampler, text("scheduler", sent.get("scheduler", "")))
    made.fields["clip_skip"] = whole("clip_skip", sent.get("clip_skip") or options.clip_skip, 1)
    made.fields["output_format"] = options.output_format.value
    made.fields["output_quality"] = options.quality


def _set_image(made: Translation, sent: Mapping[str, Any], options: Options, settings: Settings) -> None:
    images = sent.get("init_images") or []
    if not isinstance(images, list):
        raise InvalidRequest("init_images", images, "must be a list of images")
    if not images:
        raise NotFound("init_images: [] is invalid: Init image not found")
    if len(images) > 1:
        raise Unsupported("init_images", f"{len(images)} images", "send one request for each")
    image = text("init_images", images[0])
    made.fields["denoising_strength"] = number("denoising_strength", sent.get("denoising_strength", 0.75), 0, 1)
    mode = whole("resize_mode", sent.get("resize_mode", 0), 0, _LATENT_UPSCALE)
    if mode == _LATENT_UPSCALE:
        raise Unsupported("resize_mode", mode, "use 0, 1 or 2")
    if mode == ResizeMode.PAD:
        made.warnings.append("resize_mode 2 puts white around the image here")
    made.fields["resize_mode"] = mode
    if mask := text("mask", sent.get("mask", "")):
        side = options.checkpoint.description.defaults.side if options.checkpoint else ASSUMED.side
        size = (made.fields.get("width", side), made.fields.get("height", side))
        _set_mask(made, sent, image, mask, size, settings)
    else:
        made.fields["func_name"] = Function.IMAGE_TO_IMAGE.value
        made.fields["image_link" if controlnet.is_link(image) else "image_base64"] = image


def _set_mask(
    made: Translation, sent: Mapping[str, Any], image: str, mask: str, size: Size, settings: Settings
) -> None:
    """Prepare the mask as the web UI does, and the image; where only the masked part is drawn, crop both to it."""
    for name, value in (("init_images", image), ("mask", mask)):
        if controlnet.is_link(value):
            raise Unsupported(name, value, "with a mask, send the images as base64")
    data = decode_base64("init_images", image, settings)
    fill = whole("inpainting_fill", sent.get("inpainting_fill", _FILL), _FILL, _LATENT_NOTHING)
    if fill in (_LATENT_NOISE, _LATENT_NOTHING) and made.fields["denoising_strength"] < 1:
        raise Unsupported("inpainting_fill", fill, "use 0 or 1, or a denoising_strength of 1")
    whole_image = not flag("inpaint_full_res", sent.get("inpaint_full_res", True))
    padding = whole("inpaint_full_res_padding", sent.get("inpaint_full_res_padding", 0), 0)
    blurs = [number(name, sent[name], 0, 64) for name in ("mask_blur_x", "mask_blur_y") if name in sent]
    mask_options = MaskOptions(
        blur=number("mask_blur", sent.get("mask_blur", max(blurs, default=4.0)), 0, 64),
        invert=flag("inpainting_mask_invert", sent.get("inpainting_mask_invert", 0)),
        fill=fill == _FILL,
        padding=None if whole_image else padding,
    )
    prepared = prepare(data, decode_base64("mask", mask, settings), mask_options, size, settings)
    made.patch = prepared.patch
    made.fields["func_name"] = Function.INPAINT.value
    made.files = {"image": prepared.image, "mask": prepared.mask}
    if prepared.patch:  # the gateway pastes it, with the blurred mask
        made.fields |= {"keep_unmasked": False, "resize_mode": ResizeMode.STRETCH.value}


def _set_scripts(made: Translation, sent: Mapping[str, Any], options: Options, *, with_image: bool) -> None:
    scripts = mapping("alwayson_scripts", sent.get("alwayson_scripts", {}))
    chosen: list[controlnet.Unit] = []
    known = options.checkpoint.description.controlnets if options.checkpoint else ()
    for name, script in scripts.items():
        if name.lower() == "controlnet":
            chosen += controlnet.read_units(script, known, made.warnings)
        elif _does_something(script):
            raise Unsupported(f"alwayson_scripts.{name}", script, "the script is not installed")
    if not chosen:
        return
    own = next((made.fields[name] for name in ("image_base64", "image_link") if name in made.fields), "")
    if made.fields.get("func_name") == Function.INPAINT.value:
        _share_inpainted_image(made, chosen)
        return
    made.fields |= controlnet.unit_fields(chosen, own)
    made.returns_maps = made.fields["return_control_image"]
    mode = controlnet.common_resize_mode(chosen)
    if mode is not None and not with_image:
        made.fields["resize_mode"] = mode.value


def _share_inpainted_image(made: Translation, chosen: Sequence[controlnet.Unit]) -> None:
    """Set the fields of units beside a mask: they follow the inpainted image, or each has an image of its own."""
    with_image = [unit for unit in chosen if unit.image]
    if with_image and made.patch:
        raise Unsupported(f"{controlnet.FIELD}.args", "…", "with an image of its own, set inpaint_full_res to false")
    if with_image and len(with_image) < len(chosen):
        raise Unsupported(f"{controlnet.FIELD}.args", "…", "with a mask, send an image for each unit or for none")
    made.fields |= controlnet.unit_fields([replace(unit, image=unit.image or "own") for unit in chosen], "")
    made.returns_maps = made.fields["return_control_image"]
    if not with_image:
        del made.fields["control_image_base64"]


def _does_something(script: Any) -> bool:
    """Return True unless the arguments of a script are none, or begin with a switch that is off."""
    arguments = script.get("args", ()) if isinstance(script, dict) else script
    if not isinstance(arguments, list | tuple):
        return bool(arguments)
    return any(arguments) and arguments[0] is not False
