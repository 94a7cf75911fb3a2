"""The values of a request's fields, in Python's types; nothing of their meaning is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from triton_diffusers.api.contract import Input
from triton_diffusers.errors import InvalidRequest

Array = np.ndarray[Any, Any]

# Of a list. Far more than any field can use: it only keeps a long list from becoming as many Python objects, which is
# done where all requests pass. How many a field takes is said where its meaning is known.
_MOST_ELEMENTS = 1024


def read_values(tensors: Mapping[str, Array], fields: tuple[Input, ...]) -> dict[str, Any]:
    """The value of each field, in Python's types: the default where none was sent, a tuple for a list.

    ``tensors`` has arrays of shape (1, n), as Triton hands them out: BYTES as objects, the others by their type. Raises
    ``InvalidRequest`` for a missing required field, a second row, a list that is too long, or text that is not UTF-8.
    """
    values: dict[str, Any] = {}
    for field in fields:
        array = tensors.get(field.name)
        if array is not None:
            values[field.name] = _read(field, array)
        elif field.required:
            raise InvalidRequest(field.name, None, "the field is required")
        else:
            values[field.name] = field.default
    return values


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "INT64": int,
    # A float32 that was written as 0.55 is to be 0.55 again, not 0.550000011920929.
    "FP32": lambda number: float(np.format_float_positional(number, unique=True)),
    "BOOL": bool,
}


def _read(field: Input, array: Array) -> Any:
    if field.many:
        if array.ndim > 1 and array.shape[0] != 1:
            raise InvalidRequest(field.name, f"{array.shape[0]} rows", "send each picture's request by itself")
        if array.size > _MOST_ELEMENTS:
            raise InvalidRequest(field.name, f"{array.size} values", f"at most {_MOST_ELEMENTS}")
        return tuple(_element(field, element) for element in array.flat)
    if array.size != 1:
        raise InvalidRequest(field.name, f"{array.size} values", "exactly one (send each request by itself)")
    return _element(field, array.flat[0])


def _element(field: Input, element: Any) -> Any:
    if field.datatype == "BYTES":
        return bytes(element) if isinstance(element, bytes) else str(element).encode()
    if field.datatype != "STRING":
        return _READERS[field.datatype](element)
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError as error:
        raise InvalidRequest(field.name, element, "text must be UTF-8") from error
