"""The pictures of a request: each may come as bytes, as base64 or as a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triton_diffusers.decode.checks import one_or_each
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.pictures import check_size, decode_base64, decode_data_url, is_data_url
from triton_diffusers.request import DataUrl, FromBase64, Link, PictureSource
from triton_diffusers.settings import Settings


def picture(
    name: str, values: Mapping[str, Any], settings: Settings, *, wanted: bool, taker: str
) -> PictureSource | None:
    """The one of a picture's three fields that was sent; None if what is asked for, ``taker``, takes none."""
    fields = _fields(name)
    given = [field for field in fields if values[field]]
    if not wanted and given:
        raise InvalidRequest(given[0], values[given[0]], f"{taker} takes no {name}; see func_name")
    if not wanted:
        return None
    if len(given) != 1:
        raise InvalidRequest(" / ".join(fields), given, f"{taker} needs exactly one of the three")
    return _source(given[0], values[given[0]], settings)


def pictures(
    name: str, values: Mapping[str, Any], settings: Settings, *, number: int, things: str
) -> tuple[PictureSource | None, ...]:
    """A picture for each of so many things, of three list fields; all None if none was sent.

    Together they may have as many bytes as a single picture.
    """
    fields = _fields(name)
    given = [field for field in fields if any(values[field])]
    if not given:
        return (None,) * number
    if len(given) > 1:
        raise InvalidRequest(" / ".join(fields), given, "at most one of the three")
    (field,) = given
    each = one_or_each(field, values[field], None, number, things)
    sources: dict[Any, PictureSource] = {}
    for value in dict.fromkeys(each):
        sources[value] = _source(field, value, settings)
        check_size(field, sum(map(_size, sources.values())), settings)
    return tuple(sources[value] for value in each)


def _fields(name: str) -> tuple[str, str, str]:
    return name, f"{name}_base64", f"{name}_link"


def _size(source: PictureSource) -> int:
    """Bytes of it that the request brought."""
    if isinstance(source, Link):
        return 0
    return len(source if isinstance(source, bytes) else source.data)


def _source(field: str, value: Any, settings: Settings) -> PictureSource:
    if field.endswith("_link"):
        return DataUrl(decode_data_url(field, value, settings)) if is_data_url(value) else Link(value)
    if field.endswith("_base64"):
        return FromBase64(decode_base64(field, value, settings))
    check_size(field, len(value), settings)
    return bytes(value)
