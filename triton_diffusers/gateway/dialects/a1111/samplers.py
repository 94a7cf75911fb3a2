"""Samplers and schedulers by the web UI's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.sampling.schedulers import SCHEDULERS, scheduler_name

AUTOMATIC = "Automatic"

# The web UI's choice for samplers whose request names no scheduler.
_AUTOMATIC: Mapping[str, str] = {
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM2", "DPM2 a"), "Karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 3M SDE"), "Exponential"),
}
# Names of schedulers, and the suffix that a sampler gets; None: the web UI's choice.
_SPACINGS: Mapping[str, str | None] = {
    "automatic": None,
    "uniform": "",
    "normal": "",
    "karras": "Karras",
    "exponential": "Exponential",
}
_LABELS = ("Automatic", "Uniform", "Karras", "Exponential")
_KARRAS_RHO = 7.0
# stable-diffusion.cpp's clients send it for the model's own.
_MODELS_OWN = "default"
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "Euler a": ("k_euler_a", "k_euler_ancestral"),
    "PNDM": ("PLMS", "plms"),
    "DPM2 a": ("k_dpm_2_a",),
}


def sampler_views() -> list[dict[str, Any]]:
    """Return the samplers as the web UI lists them."""
    names = sorted(_plain_names())
    return [{"name": name, "aliases": list(_aliases(name)), "options": _options(name)} for name in names]


def _aliases(name: str) -> Sequence[str]:
    return _ALIASES.get(name) or (f"k_{name.lower().replace('++', 'pp').replace(' ', '_')}",)


def _options(name: str) -> dict[str, str]:
    return {"scheduler": _AUTOMATIC[name].lower()} if name in _AUTOMATIC else {}


def scheduler_views() -> list[dict[str, Any]]:
    """Return the schedulers as the web UI lists them."""
    return [
        {
            "name": label.lower(),
            "label": label,
            "aliases": None,
            "default_rho": _KARRAS_RHO if label == "Karras" else -1.0,
            "need_inner_model": False,
        }
        for label in _LABELS
    ]


def contract_scheduler(sampler: str, scheduler: str) -> str:
    """Return the contract's scheduler for the names of a sampler and a scheduler; empty: the model's own.

    Raises: NotFound: there is no such sampler. InvalidRequest: the scheduler is unsupported.
    """
    if scheduler.lower() not in ("", _MODELS_OWN, *_SPACINGS):
        known = ", ".join(_LABELS)
        raise InvalidRequest("scheduler", scheduler, f"must be one of: {known}")
    spacing = _SPACINGS.get(scheduler.lower())
    if sampler.lower() in ("", _MODELS_OWN):
        if spacing:
            raise InvalidRequest("scheduler", scheduler, "needs a sampler_name")
        return ""
    try:
        name = scheduler_name(sampler)
    except InvalidRequest as error:
        raise NotFound(f"sampler_name: {error.value} is invalid: {error.rule}") from None
    if name not in _plain_names():  # an older client's name, such as DPM++ 2M Karras
        return name
    suffix = _AUTOMATIC.get(name, "") if spacing is None else spacing
    return _joined(name, suffix, scheduler)


def split_scheduler(name: str) -> tuple[str, str]:
    """Return the sampler and the scheduler of a contract's name, in the web UI's words."""
    for label in ("Karras", "Exponential"):
        if name.endswith(f" {label}"):
            return name.removesuffix(f" {label}"), label
    return name, AUTOMATIC


def _plain_names() -> Sequence[str]:
    return [name for name in SCHEDULERS if split_scheduler(name)[1] == AUTOMATIC]


def _joined(sampler: str, suffix: str, scheduler: str) -> str:
    joined = f"{sampler} {suffix}".rstrip()
    if joined not in SCHEDULERS:
        raise InvalidRequest("scheduler", scheduler, f"{sampler} has no {suffix} spacing; use Automatic")
    return joined
