"""Warnings about names in a request that are not fields of the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from triton_diffusers.api.contract import Input
from triton_diffusers.api.synonyms import synonyms_of
from triton_diffusers.errors import shown

_MAX_WARNINGS = 8
_MAX_COMPARED_CHARACTERS = 64
_TRITONS_OWN = "triton_"
# Unknown names come in plain JSON, which cannot carry bytes.
_IN_JSON: Mapping[str, tuple[str, ...]] = {
    name: (f"{name}_link", f"{name}_base64") for name in ("image", "mask", "control_image")
}
_NOT_OF_A_REQUEST: Mapping[str, str] = {
    **dict.fromkeys(
        ("model", "model_name", "model_id", "checkpoint", "ckpt", "ckpt_name", "sd_model_checkpoint"),
        "the server draws with the model directory that it was started with",
    ),
    **dict.fromkeys(("enable_hr", "hr_scale", "hr_upscaler", "upscale"), "images are not enlarged"),
}


def unknown_fields(parameters: Iterable[str], fields: Sequence[Input]) -> tuple[str, ...]:
    """Return a warning for each of Triton's ``parameters``, which do nothing; for the first few, if they are many.

    Triton makes parameters of what is not an input in plain JSON, such as a misspelt field.
    """
    known = [field.name for field in fields]
    names = sorted(name for name in parameters if not name.startswith(_TRITONS_OWN))
    told = [_warning(name, known) for name in names[:_MAX_WARNINGS]]
    if len(names) > _MAX_WARNINGS:
        told.append(f"names that are not fields of this model and were ignored: {len(names) - _MAX_WARNINGS} more")
    return tuple(told)


def _warning(name: str, known: Sequence[str]) -> str:
    if name in known:
        return f"{name}: sent as a parameter and ignored; send it as an input"
    return f"{shown(name)} is not a field of this model and was ignored{_hint(name, known)}"


def _hint(name: str, known: Sequence[str]) -> str:
    if len(name) > _MAX_COMPARED_CHARACTERS:
        return ""
    if reason := _NOT_OF_A_REQUEST.get(name.lower()):
        return f"; {reason}"
    fields = synonyms_of(name)
    if set(fields) <= set(known) and fields:
        words = " or ".join(_IN_JSON[fields[0]]) if fields[0] in _IN_JSON else " and ".join(fields)
        return f"; did you mean {words}?"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
