"""Base64 as it comes in."""

from __future__ import annotations

import base64
import contextlib
import textwrap
import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.api.base64 import decode_base64
from triton_diffusers.errors import InvalidImage
from triton_diffusers.settings import Settings

SETTINGS = Settings()


@given(st.binary(min_size=1, max_size=60))
def test_every_way_of_writing_it_gives_the_same_bytes(data: bytes) -> None:
    standard, url_safe = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    for text in (
        standard,
        url_safe,
        standard.rstrip("="),
        url_safe.rstrip("="),
        f"data:image/png;base64,{standard}",
        f" DATA:IMAGE/svg+xml;BASE64,{url_safe}\n",
        f"data:image/png;charset=utf-8;base64,{standard}",
        f"data:application/octet-stream; name=a.png ; base64,{standard}",
        f"data:;base64,{url_safe.rstrip('=')}",
        f"data:text/html;base64,{quote(standard)}",
        f"data:image/avif,{quote(data)}",
        f"data:,{''.join(f'%{byte:02x}' for byte in data)}\n",
        "\r\n".join(textwrap.wrap(standard, 7)),
    ):
        assert decode_base64("image_base64", text, SETTINGS) == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "====",
        "QUJD=QUJD",
        "QQ===",
        "Q",
        "QUJDR",
        "QUJD!",
        "QUJDé",
        "ＱＵＪＤ",
        "data:image/png;base64,",
        "data:image/png;base64",
        "data:",
        "data:,",
        "data:image/png;base64,QUJD!",
        "data:image/png,QUJDé",
        f"data:{'x' * 2000};base64,QUJD",
        "https://example.com/a.png",
        "QUJD\x00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidImage, match=r"^mask_base64: .*must be an image as base64"):
        decode_base64("mask_base64", text, SETTINGS)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InvalidImage):
        assert decode_base64("image_base64", text, SETTINGS)


def test_the_size_is_judged_before_it_is_decoded() -> None:
    small = Settings(max_image_megabytes=0.0003)
    assert len(decode_base64("image_base64", "A" * 400, small)) == 300
    # The last sign is none of the alphabet: the length is what is complained of.
    with pytest.raises(InvalidImage, match=r"image_base64: '0.0 MB' is invalid: at most 0.0003 MB"):
        decode_base64("image_base64", "A" * 403 + "!", small)


def test_an_error_shows_only_the_beginning() -> None:
    with pytest.raises(InvalidImage) as caught:
        decode_base64("image_base64", "!" * 100_000, SETTINGS)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("length", [65_534, 65_535, 65_536, 65_537, 200_000])
def test_escapes_of_a_data_url_stay_whole_at_any_length(length: int) -> None:
    data = bytes(index % 251 for index in range(length))
    assert decode_base64("image_base64", f"data:,{'a' * (length % 3)}{quote(data)}", SETTINGS)[length % 3 :] == data


def test_the_size_of_a_percent_encoded_data_url_is_judged_before_it_is_decoded() -> None:
    small = Settings(max_image_megabytes=0.0003)
    assert len(decode_base64("image_base64", "data:," + "%00" * 300, small)) == 300
    with pytest.raises(InvalidImage, match=r"at most 0.0003 MB"):
        decode_base64("image_base64", "data:," + "%00" * 301, small)


def test_the_memory_of_escapes_is_bounded() -> None:
    text = "data:," + "%00" * 1_000_000
    tracemalloc.start()
    try:
        assert len(decode_base64("image_base64", text, SETTINGS)) == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()
