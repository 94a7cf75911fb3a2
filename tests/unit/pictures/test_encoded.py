"""Base64 as it comes in."""

from __future__ import annotations

import base64
import contextlib
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.errors import InvalidPicture
from triton_diffusers.pictures import decode_base64
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
        "data:text/html;base64,QUJD",
        "data:image/png,QUJD",
        "https://example.com/a.png",
        "QUJD\x00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidPicture, match=r"^mask_base64: .*must be a picture as base64"):
        decode_base64("mask_base64", text, SETTINGS)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InvalidPicture):
        assert decode_base64("image_base64", text, SETTINGS)


def test_the_size_is_judged_before_it_is_decoded() -> None:
    small = Settings(max_image_megabytes=0.0003)
    assert len(decode_base64("image_base64", "A" * 400, small)) == 300
    # The last sign is none of the alphabet: the length is what is complained of.
    with pytest.raises(InvalidPicture, match=r"image_base64: '0.0 MB' is not accepted; at most 0.0003 MB"):
        decode_base64("image_base64", "A" * 403 + "!", small)


def test_an_error_shows_only_the_beginning() -> None:
    with pytest.raises(InvalidPicture) as caught:
        decode_base64("image_base64", "!" * 100_000, SETTINGS)
    assert len(str(caught.value)) < 200
