"""Images among the options: which field takes each, and which function follows from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from triton_diffusers_client.errors import InvalidRequestError

_IMAGES = ("image", "mask", "control_image")
# Beginnings of URLs, and the field for each. The server fetches links, and reads data URLs.
_URLS = {"http://": "link", "https://": "link", "data:": "base64"}


def with_image_fields(options: Mapping[str, Any], *, controlled: bool) -> dict[str, Any]:
    """Return the options with URLs in the fields for them, and with the ``func_name`` that follows, if none is given.

    ``controlled``: the request uses ControlNets, where ``image`` alone is what controls. Raises ``InvalidRequestError``
    for what does not go together.
    """
    made = dict(options)
    for name in _IMAGES:
        if _is_given(options, name):
            _move_urls(made, name)
    if not made.get("func_name") and (function := _function_of(options, controlled=controlled)):
        made["func_name"] = function
    return made


def _function_of(options: Mapping[str, Any], *, controlled: bool) -> str | None:
    mask, expand = _has(options, "mask"), _is_given(options, "expand")
    if mask and expand:
        raise InvalidRequestError("mask / expand: these do not go together, unless func_name says what to do")
    if mask or expand:
        return "inpaint" if mask else "outpaint"
    if _has(options, "image") and (not controlled or _has(options, "control_image")):
        return "i2i"
    return None


def _move_urls(options: dict[str, Any], name: str) -> None:
    value = options[name]
    values = list(value) if isinstance(value, list | tuple) else [value]
    kinds = {_kind(each) for each in values}
    if kinds == {None}:
        return
    if len(kinds) > 1:
        raise InvalidRequestError(f"{name}: files and URLs do not go together; give images of one kind")
    field = f"{name}_{kinds.pop()}"
    if _is_given(options, field):
        raise InvalidRequestError(f"{name} / {field}: both hold an image; give one of the two")
    options[field] = options.pop(name)


def _kind(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return next((kind for prefix, kind in _URLS.items() if value[: len(prefix)].lower() == prefix), None)


def _has(options: Mapping[str, Any], name: str) -> bool:
    return any(_is_given(options, field) for field in (name, f"{name}_base64", f"{name}_link"))


def _is_given(options: Mapping[str, Any], field: str) -> bool:
    value = options.get(field)
    return value is not None and not (isinstance(value, Sequence | os.PathLike) and value in ("", b"", (), []))
