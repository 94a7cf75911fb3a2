"""Schedulers (samplers) by name, one object per image.

diffusers' schedulers are stateful: all count steps, and multistep solvers store earlier predictions. So each image gets
its own copy of a prototype.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.util.cache import LruCache, one

DEFAULT_SCHEDULER = "DPM++ 2M"

# Common name → diffusers class and overrides of the model's scheduler config, paired as diffusers documents. DPM++ SDE
# draws noise in every step, as in other tools; without noise, the class is the single-step solver "DPM++ 2S".
_MULTISTEP = "DPMSolverMultistepScheduler"
_SINGLESTEP = "DPMSolverSinglestepScheduler"
_ODE = {"algorithm_type": "dpmsolver++"}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    DEFAULT_SCHEDULER: (_MULTISTEP, _ODE),
    "DPM++ 2M SDE": (_MULTISTEP, _SDE),
    "DPM++ 3M SDE": (_MULTISTEP, {**_SDE, "solver_order": 3}),
    "DPM++ SDE": (_SINGLESTEP, _SDE),
    "DPM++ 2S": (_SINGLESTEP, _ODE),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {"algorithm_type": "deis"}),
}
# Step spacings available for each of them.
_SPACINGS: Mapping[str, Mapping[str, Any]] = {
    "": {"use_karras_sigmas": False, "use_exponential_sigmas": False},
    "Karras": {"use_karras_sigmas": True, "use_exponential_sigmas": False},
    "Exponential": {"use_karras_sigmas": False, "use_exponential_sigmas": True},
}
_UNSPACED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    # Every published Stable Diffusion checkpoint that uses PNDM skips the Runge-Kutta steps.
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", {}),
}
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{
        f"{name} {spacing}".rstrip(): (class_name, {**overrides, **sigmas})
        for name, (class_name, overrides) in _SAMPLERS.items()
        for spacing, sigmas in _SPACINGS.items()
    },
    **_UNSPACED,
}

# Names in ComfyUI, k-diffusion and other tools, normalized by ``_plain``.
_OTHER_NAMES: Mapping[str, str] = {
    "plms": "PNDM",
    "eulerancestral": "Euler a",
    "dpm2ancestral": "DPM2 a",
    "unipcbh2": "UniPC",
    "dpmpp": DEFAULT_SCHEDULER,
    "dpmsolverpp": DEFAULT_SCHEDULER,
    "dpmsolversde": "DPM++ SDE",
}
_SPACING_NAMES: Mapping[str, str] = {
    "karras": "Karras",
    "k": "Karras",
    "exponential": "Exponential",
    "normal": "",
    "automatic": "",
}
_MAX_COMPARED_CHARACTERS = 64
_MAX_SUGGESTIONS = 3
_MAX_PROTOTYPES = 64
_IMAGE_DIMENSIONS = 4


def _plain(name: str) -> str:
    """Return a name without capitals, punctuation and generic words: ``DPM++ 2M`` and ``dpmpp_2m`` are equal."""
    words = re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "p"))
    return words.removesuffix("scheduler").removesuffix("gpu")


_NAMES: Mapping[str, str] = {
    # A diffusers class stands for the first name that uses it.
    **{_plain(class_name): name for name, (class_name, _) in reversed(list(SCHEDULERS.items()))},
    **_OTHER_NAMES,
    **{_plain(name): name for name in SCHEDULERS},
}


def scheduler_name(given: str) -> str:
    """Return the common name for a sampler's name in A1111, ComfyUI, k-diffusion or diffusers, in any spelling.

    Raises:
        InvalidRequest: the name is unknown, or the sampler does not support its spacing.
    """
    words = _plain(given)
    for name in (words, words.removeprefix("k")):  # k-diffusion's, as k_euler
        if name in _NAMES:
            return _NAMES[name]
        for suffix, spacing in _SPACING_NAMES.items():
            sampler = _NAMES.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if sampler is None:
                continue
            if f"{sampler} {spacing}".rstrip() in SCHEDULERS:
                return f"{sampler} {spacing}".rstrip()
            raise InvalidRequest("scheduler", given, f"{sampler} has no {spacing} spacing; write {sampler}")
    near = get_close_matches(words[:_MAX_COMPARED_CHARACTERS], _NAMES, n=_MAX_SUGGESTIONS, cutoff=0.5)
    hint = f"did you mean {' or '.join(dict.fromkeys(_NAMES[name] for name in near))}? " if near else ""
    known = ", ".join([*(f"{name} (also Karras, Exponential)" for name in _SAMPLERS), *_UNSPACED])
    raise InvalidRequest("scheduler", given, f"{hint}known: {known}, and diffusers' class names")


class SchedulerFactory:
    """Factory of schedulers for one model's scheduler config, with an LRU cache of prototypes."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._prototypes: LruCache[tuple[str, int], Any] = LruCache(_MAX_PROTOTYPES, one)
        self._without_steps: dict[str, Any] = {}

    def make(self, name: str, steps: int) -> Any:
        """Return a new scheduler with ``timesteps`` set.

        Raises:
            InvalidRequest: the scheduler does not support this number of steps.
        """
        key = (name, steps)
        prototype = self._prototypes.get(key)
        if prototype is None:
            prototype = self._prepare(name, steps)
            self._prototypes.put(key, prototype)
        return copy.deepcopy(prototype)

    def warning(self, name: str) -> str | None:
        """Return a warning if a scheduler ignores a relevant option of the model's config; else None."""
        import diffusers

        if not self._config.get("rescale_betas_zero_snr"):
            return None
        kind = getattr(diffusers, SCHEDULERS[name][0])
        if "rescale_betas_zero_snr" in inspect.signature(kind.__init__).parameters:
            return None
        return f"scheduler: {name} cannot start from noise alone, as this model (zero terminal SNR) was trained to"

    def _prepare(self, name: str, steps: int) -> Any:
        scheduler = copy.deepcopy(self._construct(name))
        try:
            scheduler.set_timesteps(steps)
        except ValueError as error:
            raise InvalidRequest("steps", steps, f"the scheduler {name} says: {error}") from error
        return scheduler

    def _construct(self, name: str) -> Any:
        # Cached, because the constructors of DPM2 and Heun prepare all training steps: tenths of a second.
        if name not in self._without_steps:
            import diffusers

            class_name, overrides = SCHEDULERS[name]
            self._without_steps[name] = getattr(diffusers, class_name).from_config(self._config, **overrides)
        return self._without_steps[name]


def set_start(scheduler: Any, steps: int, strength: float) -> int:
    """Set a scheduler's first step for image-to-image at ``strength``, and return its index in ``timesteps``.

    At least one step remains. The rule is diffusers' own.
    """
    kept = max(1, min(int(steps * strength), steps))
    first: int = (steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return first


def takes_generator(scheduler: Any) -> bool:
    """Return True if ``scheduler.step`` draws noise and needs the image's generator."""
    return "generator" in inspect.signature(type(scheduler).step).parameters


def move_scheduler(scheduler: Any, device: Any) -> None:
    """Move a scheduler's stored images to a device, and all its tables to the CPU, which suit images on any device."""

    def moved(value: Any) -> Any:
        if hasattr(value, "ndim") and hasattr(value, "to"):
            return value.to(device if value.ndim == _IMAGE_DIMENSIONS else "cpu")
        return [moved(entry) for entry in value] if isinstance(value, list) else value

    for name, value in vars(scheduler).items():
        setattr(scheduler, name, moved(value))
