"""JSON of callers is bounded before it becomes objects."""

from __future__ import annotations

import contextlib
import itertools
import json
import time

import pytest

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.json_body import MAX_DEPTH, MAX_VALUES, read_json, read_object


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, 2.5, "x", None, True]}, {"text": '[{"\\'}, {"图": "🏻"}, [[]], "text", 7], ids=repr
)
def test_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1}{', b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_text_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^body: .* is invalid: must be JSON"):
        read_json(body)


def test_json_in_another_encoding_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must be JSON in UTF-8"):
        read_json('{"prompt": "café"}'.encode("latin-1"))


def test_only_an_object_is_a_request() -> None:
    with pytest.raises(InvalidRequest, match="body: \\[1\\] is invalid: must be a JSON object"):
        read_object(b"[1]")


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    read_json(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    with pytest.raises(InvalidRequest, match=f"JSON of at most {MAX_DEPTH} levels"):
        read_json(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))


def test_number_of_values_is_bounded() -> None:
    read_json(b"[" + b"0," * (MAX_VALUES - 2) + b"0]")
    with pytest.raises(InvalidRequest, match=f"JSON of at most {MAX_VALUES} values"):
        read_json(b"[" + b"0," * MAX_VALUES + b"0]")


@pytest.mark.parametrize("part", [b"[],", b'"",', b'"\\"",', b"{},", b'"\\\\",', b'"'])
def test_large_hostile_bodies_are_refused_soon(part: bytes) -> None:
    body = b"[" + part * (10_000_000 // len(part))
    before = time.process_time()
    with pytest.raises(InvalidRequest):
        read_json(body)
    assert time.process_time() - before < 2.0


@pytest.mark.parametrize("opening", [b"", b'"', b'["'])
def test_no_pattern_takes_quadratic_time(opening: bytes) -> None:
    patterns = ["".join(each) for length in (1, 2, 3) for each in itertools.product('"\\[,a', repeat=length)]
    for pattern in patterns:
        before = time.process_time()
        with contextlib.suppress(InvalidRequest):
            read_json(opening + pattern.encode() * (60_000 // len(pattern)))
        assert time.process_time() - before < 1.0, pattern


def test_large_strings_are_read_soon() -> None:
    body = b'{"image_base64": "' + b"A" * 20_000_000 + b'"}'
    before = time.process_time()
    assert len(read_object(body)["image_base64"]) == 20_000_000
    assert time.process_time() - before < 2.0
