"""One request, complete and ready for the wire."""

from __future__ import annotations

import difflib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from triton_diffusers_client.fields import CONTROL_INPUTS, CONTROL_MODELS, INPUTS
from triton_diffusers_client.tensors import Array, encode

_CONTROL = frozenset(field.name for field in CONTROL_INPUTS)
_OPTIONS = frozenset(field.name for field in INPUTS) - {"prompt"} | _CONTROL
_RANDOM = (None, "", -1, "-1")
# One bit less than the server takes, so that seed + i of the last image is in range too.
_SEED_BITS = 63


@dataclass(frozen=True, slots=True)
class Request:
    """What goes to the server: the same tensors at every attempt, so a retry draws the same picture."""

    model: str
    task_id: str
    tensors: Mapping[str, Array]

    @classmethod
    def build(cls, model: str, prompt: str, options: Mapping[str, Any]) -> Self:
        """The request for a model; with options of ControlNets, for the one that takes them in its place.

        Raises ``TypeError`` for an option that does not exist, ``InvalidRequestError`` for a value's wrong type.
        """
        for name in options.keys() - _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            raise TypeError(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        values = {"return_images": True, **options, "prompt": prompt}
        values["task_id"] = values.get("task_id") or uuid.uuid4().hex
        values["seed"] = _seed(values.get("seed"))
        if controlled := any(options.get(name) is not None for name in _CONTROL):
            model = CONTROL_MODELS.get(model, model)
        takes_controls = controlled or model in CONTROL_MODELS.values()
        fields = (*INPUTS, *CONTROL_INPUTS) if takes_controls else INPUTS
        return cls(model, values["task_id"], encode(values, fields, batched=True))


def _seed(seed: Any) -> Any:
    if seed in _RANDOM:
        return str(secrets.randbits(_SEED_BITS))
    is_number = isinstance(seed, int) and not isinstance(seed, bool)
    return str(seed) if is_number else seed
