"""Input images of a request, which are kept beside its row in the job table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triton_diffusers.api.contract import Input
from triton_diffusers.gateway.jobs.job import Blob

_IMAGE_FIELDS = frozenset(
    f"{name}{suffix}" for name in ("image", "mask", "control_image") for suffix in ("", "_base64", "_link")
)
_TEXT = "text/plain"


def split_inputs(values: Mapping[str, Any], fields: Sequence[Input]) -> tuple[dict[str, Any], dict[str, Blob]]:
    """Return the values that differ from their defaults, and the images among them as blobs by field and number."""
    small: dict[str, Any] = {}
    blobs: dict[str, Blob] = {}
    for field in fields:
        value = values[field.name]
        if value == field.default:
            continue
        if field.name in _IMAGE_FIELDS:
            elements = value if isinstance(value, tuple) else (value,)
            blobs |= {f"{field.name}/{number}": _blob(element) for number, element in enumerate(elements)}
        else:
            small[field.name] = list(value) if isinstance(value, tuple) else value
    return small, blobs


def join_inputs(small: Mapping[str, Any], blobs: Mapping[str, Blob], fields: Sequence[Input]) -> dict[str, Any]:
    """Return the values that ``split_inputs`` has split."""
    values = {field.name: small.get(field.name, field.default) for field in fields}
    many = {field.name for field in fields if field.many}
    for key in sorted(blobs, key=_number):
        name, data = key.partition("/")[0], blobs[key].data
        values[name] = (*values[name], data) if name in many else data
    return values


def _number(key: str) -> int:
    return int(key.partition("/")[2])


def _blob(value: str | bytes) -> Blob:
    return Blob(data=value.encode(), media_type=_TEXT) if isinstance(value, str) else Blob(data=value)
