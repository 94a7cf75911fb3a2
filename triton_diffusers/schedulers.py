"""Schedulers (samplers) by name, one object for each image.

diffusers' schedulers are stateful: multistep solvers keep earlier predictions, and all of them count steps. Sharing one
between images would mix them up, so each image gets a copy of a prepared prototype.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from triton_diffusers.errors import InvalidRequest

DEFAULT_SCHEDULER = "DPM++ 2M"

# Common name → diffusers class and what differs from the model's own scheduler config. The pairing of names and
# classes is the one that diffusers documents.
_MULTISTEP = "DPMSolverMultistepScheduler"
_SINGLESTEP = "DPMSolverSinglestepScheduler"
_PLAIN = {"use_karras_sigmas": False}
_KARRAS = {"use_karras_sigmas": True}
_ODE = {"algorithm_type": "dpmsolver++"}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    DEFAULT_SCHEDULER: (_MULTISTEP, {**_ODE, **_PLAIN}),
    "DPM++ 2M Karras": (_MULTISTEP, {**_ODE, **_KARRAS}),
    "DPM++ 2M SDE": (_MULTISTEP, {**_SDE, **_PLAIN}),
    "DPM++ 2M SDE Karras": (_MULTISTEP, {**_SDE, **_KARRAS}),
    "DPM++ SDE": (_SINGLESTEP, {**_ODE, **_PLAIN}),
    "DPM++ SDE Karras": (_SINGLESTEP, {**_ODE, **_KARRAS}),
    "Euler": ("EulerDiscreteScheduler", _PLAIN),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    # Every published Stable Diffusion checkpoint that uses PNDM skips the Runge-Kutta steps.
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": ("UniPCMultistepScheduler", _PLAIN),
    "Heun": ("HeunDiscreteScheduler", _PLAIN),
    "LCM": ("LCMScheduler", {}),
}

_ALIASES: Mapping[str, str] = {
    "plms": "PNDM",
    "euler ancestral": "Euler a",
    **{name.lower(): name for name in SCHEDULERS},
    # A diffusers class stands for the first name that uses it.
    **{diffusers_class.lower(): name for name, (diffusers_class, _) in reversed(list(SCHEDULERS.items()))},
}


def scheduler_name(given: str) -> str:
    """The common name for a common or diffusers name, upper or lower case. Raises ``InvalidRequest``."""
    name = _ALIASES.get(given.strip().lower())
    if name is None:
        raise InvalidRequest("scheduler", given, f"known: {', '.join(SCHEDULERS)}, and diffusers' class names")
    return name


class SchedulerFactory:
    """Makes schedulers for one model from its scheduler config."""

    _MOST_PROTOTYPES = 64

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._prototypes: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def make(self, name: str, steps: int) -> Any:
        """A new scheduler with ``timesteps`` set. Raises ``InvalidRequest`` if the scheduler cannot do ``steps``."""
        key = (name, steps)
        if key not in self._prototypes:
            self._prototypes[key] = self._prepare(name, steps)
            if len(self._prototypes) > self._MOST_PROTOTYPES:
                self._prototypes.popitem(last=False)
        self._prototypes.move_to_end(key)
        return copy.deepcopy(self._prototypes[key])

    def warning(self, name: str) -> str | None:
        """Return what a scheduler does not know of the model's config; None if it knows all that counts."""
        import diffusers

        if not self._config.get("rescale_betas_zero_snr"):
            return None
        kind = getattr(diffusers, SCHEDULERS[name][0])
        if "rescale_betas_zero_snr" in inspect.signature(kind.__init__).parameters:
            return None
        return f"scheduler: {name} cannot start from noise alone, as this model (zero terminal SNR) was trained to"

    def _prepare(self, name: str, steps: int) -> Any:
        import diffusers

        class_name, overrides = SCHEDULERS[name]
        scheduler = getattr(diffusers, class_name).from_config(self._config, **overrides)
        try:
            scheduler.set_timesteps(steps)
        except ValueError as error:
            raise InvalidRequest("steps", steps, f"the scheduler {name} says: {error}") from error
        return scheduler


def begin_late(scheduler: Any, steps: int, strength: float) -> int:
    """Let a prepared scheduler begin where a picture that is drawn anew by ``strength`` has its place.

    Returns that place in ``scheduler.timesteps``; at least one step is left. The rule is diffusers' own.
    """
    kept = max(1, min(int(steps * strength), steps))
    first: int = (steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return first


def takes_generator(scheduler: Any) -> bool:
    """Whether ``scheduler.step`` draws noise of its own and so wants the image's generator."""
    return "generator" in inspect.signature(type(scheduler).step).parameters
