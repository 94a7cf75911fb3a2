"""One complete request."""

from __future__ import annotations

import difflib
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from triton_diffusers_client.fields import CONTROL_INPUTS, CONTROL_MODELS, DEFAULT_MODELS, INPUTS, InputField
from triton_diffusers_client.image_fields import with_image_fields
from triton_diffusers_client.synonyms import synonyms_of
from triton_diffusers_client.values import checked

GATEWAY_OPTIONS = ("priority", "webhook")
_CONTROL = frozenset(field.name for field in CONTROL_INPUTS)
_OPTIONS = frozenset(field.name for field in INPUTS) - {"prompt"} | _CONTROL
_RANDOM = ("", "-1")
# One bit less than the server's range, so that seed + i of the last image is valid, too.
_SEED_BITS = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, the same for every attempt, so that a retry gives the same image.

    ``values`` are those of ``fields`` that were given. ``models``: the first that the server has is used. ``model`` is
    the one that the caller has named, if any. ``extras`` are a gateway's own fields.
    """

    models: tuple[str, ...]
    model: str | None
    task_id: str
    fields: tuple[InputField, ...]
    values: Mapping[str, Any]
    extras: Mapping[str, Any]

    @classmethod
    def build(cls, model: str | None, prompt: str, options: Mapping[str, Any]) -> Self:
        """Return the request for a model; with options of ControlNets, for the one that takes them in its place.

        None stands for the default models. Raises ``TypeError`` for an option that does not exist, and
        ``InvalidRequestError`` for a value's wrong type, or for options that do not go together.
        """
        extras = {name: options[name] for name in GATEWAY_OPTIONS if options.get(name) is not None}
        options = {name: value for name, value in options.items() if name not in GATEWAY_OPTIONS}
        for name in options.keys() - _OPTIONS:
            raise TypeError(f"unknown option {name!r}{_hint(name)}")
        models: tuple[str, ...] = DEFAULT_MODELS if model is None else (model,)
        if controlled := any(options.get(name) is not None for name in _CONTROL):
            models = tuple(CONTROL_MODELS.get(each, each) for each in models)
        takes_controls = controlled or models[0] in CONTROL_MODELS.values()
        values = {"return_images": True, **with_image_fields(options, controlled=takes_controls), "prompt": prompt}
        values["task_id"] = values.get("task_id") or uuid.uuid4().hex
        values["seed"] = _seed(values.get("seed"))
        fields = (*INPUTS, *CONTROL_INPUTS) if takes_controls else INPUTS
        return cls(
            models=models,
            model=None if model is None else models[0],
            task_id=values["task_id"],
            fields=fields,
            values=checked(values, fields),
            extras=extras,
        )


def _hint(name: str) -> str:
    near: Iterable[str] = synonyms_of(name) or difflib.get_close_matches(name, _OPTIONS, n=1)
    words = " and ".join(repr(each) for each in near if each in _OPTIONS)
    return f"; did you mean {words}?" if words else ""


def _seed(seed: Any) -> Any:
    if not isinstance(seed, int | str) and hasattr(seed, "item"):  # numpy's
        seed = seed.item()
    if isinstance(seed, int) and not isinstance(seed, bool):
        seed = str(seed)
    if seed is None or (isinstance(seed, str) and seed in _RANDOM):
        return str(secrets.randbits(_SEED_BITS))
    return seed
