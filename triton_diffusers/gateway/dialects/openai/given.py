"""Fields of a request as its caller sent them: a JSON object, or a multipart form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from triton_diffusers.api.contract import DataType
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.json_body import read_object

FILES = ("image", "mask", "control_image")
"""Fields that can be uploaded files."""

_MAX_FILES = 16
_MAX_FIELDS = 200
_MAX_TEXT_BYTES = 10**6
_NAME = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<key>[^\[\]]*)\])?")
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Given:
    """Fields by name. ``is_form``: their values are texts, and ``files`` has the uploaded ones."""

    fields: Mapping[str, Any]
    files: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    is_form: bool = False

    def canonical(self) -> bytes:
        """Return bytes that equal requests share: each repeat of a form has another boundary."""
        digests = {name: [hashlib.sha256(file).hexdigest() for file in files] for name, files in self.files.items()}
        return json.dumps([self.fields, digests], sort_keys=True).encode()

    def typed(self, value: Any, datatype: DataType) -> Any:
        """Return a value as JSON would have it; a text of a form that does not fit the type stays as it is."""
        if isinstance(value, list):
            return [self.typed(element, datatype) for element in value]
        if not self.is_form or not isinstance(value, str):
            return value
        try:
            return _CONVERTERS[datatype](value)
        except (KeyError, ValueError):
            return value


def _flag(text: str) -> bool:
    return _FLAGS[text.strip().lower()]


_CONVERTERS: Mapping[DataType, Any] = {"INT64": int, "FP32": float, "BOOL": _flag, "STRING": str, "BYTES": str}


async def read_form(request: Request) -> Given:
    """Return the fields of a multipart form. Raises: HTTPException, InvalidRequest."""
    async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_MAX_TEXT_BYTES) as form:
        return Given(_texts(form.multi_items()), await _files(form), is_form=True)


def read_document(body: bytes) -> Given:
    """Return the fields of a JSON object. Raises: InvalidRequest."""
    return Given(read_object(body))


async def _files(form: FormData) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for sent, value in form.multi_items():
        if isinstance(value, UploadFile):
            name = sent.removesuffix("[]")
            if name not in FILES:
                raise InvalidRequest(name, value.filename, f"files are taken as: {', '.join(FILES)}")
            found[name] = (*found.get(name, ()), await value.read())
    return found


def _texts(items: Iterable[tuple[str, UploadFile | str]]) -> dict[str, Any]:
    """Return the texts: ``a[]`` and a repeated ``a`` as lists, ``a[b]`` as an object, as OpenAI's clients send them."""
    found: dict[str, Any] = {}
    for sent, value in items:
        if isinstance(value, UploadFile):
            continue
        match = _NAME.fullmatch(sent)
        name, key = (match["name"], match["key"]) if match else (sent, None)
        if key:
            members = found.setdefault(name, {})
            if not isinstance(members, dict):
                raise InvalidRequest(name, value, "must be one text, a list or an object")
            members[key] = value
        elif key == "" or name in found:
            former = found.get(name, [])
            found[name] = [*(former if isinstance(former, list) else [former]), value]
        else:
            found[name] = value
    return found
