"""Frames and attributes on the wire, compared with known bytes and with protobuf's own reading."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway.eas.wire import ReceivedFrame, read_attributes, read_frame, read_frames
from triton_diffusers.gateway.dialects.eas.frames import (
    JSON,
    PROTOBUF,
    Frame,
    encode_attributes,
    encode_frame,
    encode_frames,
    media_type_of,
)

FRAME = Frame(index=1033, tags={"requestId": "r1"}, data=b"abc")
BYTES = "088908120f0a09726571756573744964120272311a03616263"


def test_messages_have_the_bytes_of_the_protocol() -> None:
    assert encode_frame(FRAME, PROTOBUF).hex() == BYTES
    assert encode_frames([FRAME], PROTOBUF).hex() == f"0a19{BYTES}"
    assert encode_attributes({"stream.length": "0"}, PROTOBUF).hex() == "0a120a0d73747265616d2e6c656e677468120130"
    assert encode_frames([], PROTOBUF) == b""


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(st.integers(1, 2**63 - 1), st.dictionaries(_TEXT, _TEXT, max_size=4), st.binary(max_size=400))
def test_protobuf_reads_every_frame(index: int, tags: dict[str, str], data: bytes) -> None:
    frame = Frame(index=index, tags=tags, data=data)
    read = ReceivedFrame(index, tags, data)
    assert read_frame(encode_frame(frame, PROTOBUF)) == read
    assert read_frames(encode_frames([frame, frame], PROTOBUF)) == [read, read]
    assert read_attributes(encode_attributes(tags, PROTOBUF)) == tags


def test_json_has_the_data_as_base64() -> None:
    tagged = {"index": 1033, "tags": {"requestId": "r1"}, "data": base64.b64encode(b"abc").decode()}
    assert json.loads(encode_frames([FRAME, FRAME], JSON)) == [tagged, tagged]
    assert json.loads(encode_frame(FRAME, JSON)) == tagged
    assert json.loads(encode_attributes({"a": "ä"}, JSON)) == {"a": "ä"}


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("", JSON), ("*/*", JSON), (PROTOBUF, PROTOBUF), (f"text/html, {PROTOBUF.upper()};q=0.9", PROTOBUF)],
)
def test_a_caller_chooses_protobuf(accept: str, media_type: str) -> None:
    assert media_type_of(accept) == media_type
