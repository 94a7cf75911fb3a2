"""What of a request no field of the model takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from triton_diffusers.contract import Input
from triton_diffusers.errors import shown

_MOST_TOLD = 4
_LONGEST_COMPARED = 64
_TRITONS_OWN = "triton_"


def unknown_fields(parameters: Iterable[str], fields: Sequence[Input]) -> tuple[str, ...]:
    """A warning for each of Triton's ``parameters``, which do nothing; for the first few, if they are many.

    That is where Triton puts what is no input in plain JSON, such as a misspelt field.
    """
    known = [field.name for field in fields]
    names = sorted(name for name in parameters if not name.startswith(_TRITONS_OWN))
    told = [_warning(name, known) for name in names[:_MOST_TOLD]]
    if len(names) > _MOST_TOLD:
        told.append(f"{len(names) - _MOST_TOLD} more names that are no fields of this model were ignored")
    return tuple(told)


def _warning(name: str, known: Sequence[str]) -> str:
    if name in known:
        return f"{name}: sent as a parameter and ignored; send it as an input"
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= _LONGEST_COMPARED else []
    return f"{shown(name)} is no field of this model and was ignored" + (f"; did you mean {near[0]}?" if near else "")
