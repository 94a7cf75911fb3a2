"""Python values to tensors and back. STRING and BYTES are object arrays of bytes: UTF-8, and encoded images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from triton_diffusers_client.errors import ServerError
from triton_diffusers_client.fields import DataType, InputField, OutputField
from triton_diffusers_client.values import checked

Array = np.ndarray[Any, Any]

_NUMPY_TYPES: Mapping[DataType, type[Any]] = {
    "STRING": object,
    "BYTES": object,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}


def encode(values: Mapping[str, Any], fields: Iterable[InputField], *, batched: bool) -> dict[str, Array]:
    """Return all ``fields`` as arrays of shape (1, n) if ``batched``, else (n,); n is 1, or a list's length, maybe 0.

    A field that is missing in ``values``, or None there, gets its default. Raises as ``values.checked`` does.
    """
    fields = tuple(fields)
    given = checked(values, fields)
    arrays = {}
    for field in fields:
        value = given.get(field.name, field.default)
        elements = value if field.many and isinstance(value, tuple) else (value,)
        wire = [element.encode() if isinstance(element, str) else element for element in elements]
        array = np.array(wire, _NUMPY_TYPES[field.datatype])
        arrays[field.name] = array[np.newaxis] if batched else array
    return arrays


def decode(arrays: Mapping[str, Array], fields: Iterable[OutputField]) -> dict[str, Any]:
    """Return the value of each of ``fields``: Python scalars, bytes for STRING and BYTES, tuples for lists.

    Raises ``ServerError`` if one is missing, or has not one value where it should. Others in ``arrays`` are ignored:
    a newer server may send more.
    """
    values: dict[str, Any] = {}
    for field in fields:
        if field.name not in arrays:
            raise ServerError(f"the answer has no {field.name}: is the server of another version than this client?")
        elements = tuple(arrays[field.name].ravel().tolist())
        if field.datatype == "FP32":
            # Read the float32 of 0.55 as 0.55, not as 0.550000011920929.
            elements = tuple(float(str(np.float32(element))) for element in elements)
        if not field.many and len(elements) != 1:
            raise ServerError(f"the answer has {len(elements)} values of {field.name}, not one")
        values[field.name] = elements if field.many else elements[0]
    return values
