"""Messages of the queue service, read as a client reads them: by protobuf."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _entry(name: str) -> descriptor_pb2.DescriptorProto:
    entry = descriptor_pb2.DescriptorProto(name=name, options={"map_entry": True})
    for number, field in enumerate(("key", "value"), 1):
        entry.field.add(name=field, number=number, label=1, type=9)
    return entry


def _message_class(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="queueservice.proto", package="streaming", syntax="proto3")
    frame = file.message_type.add(name="DataFrameProto")
    frame.nested_type.append(_entry("TagsEntry"))
    frame.field.add(name="index", number=1, label=1, type=4)
    frame.field.add(name="tags", number=2, label=3, type=11, type_name=".streaming.DataFrameProto.TagsEntry")
    frame.field.add(name="data", number=3, label=1, type=12)
    frame.field.add(name="message", number=4, label=1, type=9)
    frames = file.message_type.add(name="DataFrameListProto")
    frames.field.add(name="index", number=1, label=3, type=11, type_name=".streaming.DataFrameProto")
    attributes = file.message_type.add(name="AttributesProto")
    attributes.nested_type.append(_entry("AttributesEntry"))
    attributes.field.add(
        name="attributes", number=1, label=3, type=11, type_name=".streaming.AttributesProto.AttributesEntry"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"streaming.{name}"))


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A frame as a client has read it."""

    index: int
    tags: dict[str, str]
    data: bytes

    @property
    def reply(self) -> Any:
        """Return the reply in it."""
        return json.loads(self.data)


def read_frame(message: bytes) -> ReceivedFrame:
    """Return a frame."""
    frame = _message_class("DataFrameProto").FromString(message)
    return ReceivedFrame(frame.index, dict(frame.tags), frame.data)


def read_frames(message: bytes) -> list[ReceivedFrame]:
    """Return the frames of a list."""
    frames = _message_class("DataFrameListProto").FromString(message).index
    return [ReceivedFrame(frame.index, dict(frame.tags), frame.data) for frame in frames]


def read_attributes(message: bytes) -> dict[str, str]:
    """Return attributes."""
    return dict(_message_class("AttributesProto").FromString(message).attributes)
