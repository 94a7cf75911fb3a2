"""Values of a request's fields, checked for their types."""

from __future__ import annotations

import io
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_diffusers_client.errors import InvalidRequestError
from triton_diffusers_client.fields import DataType, InputField
from triton_diffusers_client.image import EncodedImage

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_INT64 = range(-(2**63), 2**63)
_IMAGE_DIMENSIONS = 3


def checked(values: Mapping[str, Any], fields: Iterable[InputField]) -> dict[str, Any]:
    """Return the value of each of ``fields`` that has one: text, bytes, numbers, flags, or a tuple of them for a list.

    None stands for a missing value; a list may be given as a single value. Images become encoded bytes. What numpy and
    Pillow make is taken without importing them. Raises ``InvalidRequestError`` for a value of another type than its
    field's.
    """
    made: dict[str, Any] = {}
    for field in fields:
        value = values.get(field.name)
        if value is None:
            continue
        check = _CHECKS[field.datatype]
        if field.many:
            made[field.name] = tuple(check(field, _plain(element)) for element in _elements(field, value))
        else:
            made[field.name] = check(field, _plain(value))
    return made


def _elements(field: InputField, value: Any) -> Iterable[Any]:
    if _is_one_image(field, value):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview):
        return value
    return (value,)


def _plain(value: Any) -> Any:
    """Return a scalar of numpy's as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_one_image(field: InputField, value: Any) -> bool:
    """Return True for an array or an open file, which could be taken for a list of rows or lines."""
    is_pixels = _is_array(value) and len(value.shape) <= _IMAGE_DIMENSIONS
    return field.datatype == "BYTES" and (is_pixels or hasattr(value, "read"))


def _refusal(field: InputField, value: Any, wanted: str) -> InvalidRequestError:
    return InvalidRequestError.of(field.name, _shown(value), f"it must be {wanted}")


def _shown(value: Any) -> str:
    """Return a value in an error message: short, whatever it is."""
    if _is_array(value):
        return f"a numpy array of shape {tuple(value.shape)} and type {value.dtype}"
    if value is None or isinstance(value, str | bytes | int | float):
        return reprlib.repr(value)
    return f"an object of type {type(value).__name__}"


def _text(field: InputField, value: Any) -> str:
    if not isinstance(value, str):
        raise _refusal(field, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refusal(field, value, "text that can be written as UTF-8") from None
    return value


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
    if _is_array(value):
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


def _from_array(field: InputField, array: Any) -> PilImage:
    """Return pixels as a Pillow image."""
    shape = tuple(array.shape)
    if str(array.dtype) != "uint8" or 0 in shape or len(shape) < 2 or shape[2:] not in ((), (1,), (3,), (4,)):
        raise _refusal(field, array, "uint8 pixels of shape (height, width) or (height, width, 1, 3 or 4)")
    try:
        import PIL.Image
    except ModuleNotFoundError as error:
        raise _refusal(
            field, array, "an encoded image; arrays need Pillow (pip install 'triton-diffusers-client[pil]')"
        ) from error
    return PIL.Image.fromarray(array[..., 0] if shape[2:] == (1,) else array)


def _whole_number(field: InputField, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise _refusal(field, value, "a whole number of at most 64 bits")
    return value


def _number(field: InputField, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(field, value, "a number")
    if not math.isfinite(value):
        raise _refusal(field, value, "a finite number")
    return float(value)


def _flag(field: InputField, value: Any) -> bool:
    # bool("false") is True, so nothing is converted.
    if not isinstance(value, bool):
        raise _refusal(field, value, "True or False")
    return value


_CHECKS: Mapping[DataType, Callable[[InputField, Any], Any]] = {
    "STRING": _text,
    "BYTES": _image,
    "INT64": _whole_number,
    "FP32": _number,
    "BOOL": _flag,
}
