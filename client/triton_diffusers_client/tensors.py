"""Python values to tensors and back. STRING and BYTES are object arrays of bytes: UTF-8, and encoded images."""

from __future__ import annotations

import io
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_diffusers_client.errors import InvalidRequestError, ServerError
from triton_diffusers_client.fields import DataType, InputField, OutputField
from triton_diffusers_client.image import EncodedImage

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Array = np.ndarray[Any, Any]

_NUMPY_TYPES: Mapping[DataType, type[Any]] = {
    "STRING": object,
    "BYTES": object,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}
_INT64 = range(-(2**63), 2**63)
_IMAGE_DIMENSIONS = 3


def encode(values: Mapping[str, Any], fields: Iterable[InputField], *, batched: bool) -> dict[str, Array]:
    """Return all ``fields`` as arrays of shape (1, n) if ``batched``, else (n,); n is 1, or a list's length, maybe 0.

    A field that is missing in ``values``, or None there, gets its default; a list may be given as a single value.
    Raises ``InvalidRequestError`` for a value of another type than its field's.
    """
    arrays = {}
    for field in fields:
        value = values.get(field.name)
        elements = _elements(field, field.default if value is None else value)
        check = _CHECKS[field.datatype]
        array = np.array([check(field, element) for element in elements], _NUMPY_TYPES[field.datatype])
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


def _elements(field: InputField, value: Any) -> Iterable[Any]:
    if not field.many or _is_one_image(field, value):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview):
        return value
    return (value,)


def _refusal(field: InputField, value: Any, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field.name}: {_shown(value)} is invalid: it must be {wanted}")


def _shown(value: Any) -> str:
    """Return a value in an error message: short, whatever it is."""
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape} and type {value.dtype}"
    if value is None or isinstance(value, str | bytes | int | float):
        return reprlib.repr(value)
    return f"an object of type {type(value).__name__}"


def _is_one_image(field: InputField, value: Any) -> bool:
    """Return True for an array or an open file, which could be taken for a list of rows or lines."""
    is_array = isinstance(value, np.ndarray) and value.ndim <= _IMAGE_DIMENSIONS
    return field.datatype == "BYTES" and (is_array or hasattr(value, "read"))


def _text(field: InputField, value: Any) -> bytes:
    if not isinstance(value, str):
        raise _refusal(field, value, "a text")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _refusal(field, value, "text that can be written as UTF-8") from None


def _image(field: InputField, value: Any) -> bytes:
    """Return an encoded image as it is, also one that was drawn; a file's bytes; a Pillow image or array as PNG."""
    if isinstance(value, EncodedImage):
        return value.data
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        try:
            return Path(value).read_bytes()
        except OSError as error:
            raise _refusal(field, value, f"a file that can be read ({error.strerror})") from error
    if hasattr(value, "read") and isinstance(data := value.read(), bytes):
        return data
    if isinstance(value, np.ndarray):
        value = _from_array(field, value)
    if hasattr(value, "save"):
        buffer = io.BytesIO()
        value.save(buffer, format="PNG")
        return buffer.getvalue()
    raise _refusal(
        field,
        value,
        "an encoded image's bytes, a path, a file opened in binary mode, a URL, a Pillow image, or a numpy array",
    )


def _from_array(field: InputField, array: Array) -> PilImage:
    """Return pixels as a Pillow image."""
    if array.dtype != np.uint8 or array.size == 0 or array.ndim < 2 or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise _refusal(field, array, "uint8 pixels of shape (height, width) or (height, width, 1, 3 or 4)")
    try:
        import PIL.Image
    except ModuleNotFoundError as error:
        raise _refusal(
            field, array, "an encoded image; arrays need Pillow (pip install 'triton-diffusers-client[pil]')"
        ) from error
    return PIL.Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _whole_number(field: InputField, value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or int(value) not in _INT64:
        raise _refusal(field, value, "a whole number of at most 64 bits")
    return int(value)


def _number(field: InputField, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise _refusal(field, value, "a number")
    if not math.isfinite(value):
        raise _refusal(field, value, "a finite number")
    return float(value)


def _flag(field: InputField, value: Any) -> bool:
    # bool("false") is True, so nothing is converted.
    if not isinstance(value, bool | np.bool_):
        raise _refusal(field, value, "True or False")
    return bool(value)


_CHECKS: Mapping[DataType, Callable[[InputField, Any], Any]] = {
    "STRING": _text,
    "BYTES": _image,
    "INT64": _whole_number,
    "FP32": _number,
    "BOOL": _flag,
}
