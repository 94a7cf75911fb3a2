"""Frames: entries of a queue as clients read them, in protobuf or JSON.

The messages have a handful of fields, and are only ever written here: that needs no generated code.

    DataFrameProto      index = 1 (uint64), tags = 2 (map<string, string>), data = 3 (bytes), message = 4 (string)
    DataFrameListProto  index = 1 (repeated DataFrameProto)
    AttributesProto     attributes = 1 (map<string, string>)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PROTOBUF = "application/vnd.google.protobuf"
JSON = "application/json"

_BYTES = 2  # the wire type of everything but numbers
_INDEX, _TAGS, _DATA = 1, 2, 3
_KEY, _VALUE = 1, 2
_ELEMENT = 1  # the only field of the list and of the attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An entry of a queue."""

    index: int
    tags: Mapping[str, str]
    data: bytes = b""

    def to_protobuf(self) -> bytes:
        """Return a DataFrameProto."""
        data = _field(_DATA, self.data) if self.data else b""
        return b"".join((_varint(_INDEX << 3), _varint(self.index), _map(_TAGS, self.tags), data))

    def to_json(self) -> str:
        """Return a JSON object, with the data as base64."""
        data = base64.b64encode(self.data).decode()
        return json.dumps({"index": self.index, "tags": dict(self.tags), "data": data}, ensure_ascii=False)


def encode_frame(frame: Frame, media_type: str) -> bytes:
    """Return a frame in protobuf or JSON."""
    return frame.to_protobuf() if media_type == PROTOBUF else frame.to_json().encode()


def encode_frames(frames: Sequence[Frame], media_type: str) -> bytes:
    """Return frames as a DataFrameListProto or a JSON list."""
    if media_type == PROTOBUF:
        return b"".join(_field(_ELEMENT, frame.to_protobuf()) for frame in frames)
    return f"[{','.join(frame.to_json() for frame in frames)}]".encode()


def encode_attributes(attributes: Mapping[str, str], media_type: str) -> bytes:
    """Return attributes as an AttributesProto or a JSON object."""
    if media_type == PROTOBUF:
        return _map(_ELEMENT, attributes)
    return json.dumps(attributes, ensure_ascii=False).encode()


def media_type_of(accept: str) -> str:
    """Return the media type for an ``Accept`` header: protobuf if it is named, else JSON."""
    return PROTOBUF if PROTOBUF in accept.lower() else JSON


def _map(number: int, values: Mapping[str, str]) -> bytes:
    entries = (_field(_KEY, key.encode()) + _field(_VALUE, value.encode()) for key, value in values.items())
    return b"".join(_field(number, entry) for entry in entries)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
