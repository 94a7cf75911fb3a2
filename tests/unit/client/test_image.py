"""Images of a result: shown in notebooks, and saved under names that fit."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pytest

from triton_diffusers_client import EncodedImage


def encoded(kind: str) -> EncodedImage:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), "red").save(buffer, kind)
    return EncodedImage(buffer.getvalue())


def test_notebooks_show_each_format_by_its_own_method() -> None:
    png, jpeg, webp = encoded("png"), encoded("jpeg"), encoded("webp")
    assert [image._repr_png_() for image in (png, jpeg, webp)] == [png.data, None, None]
    assert [image._repr_jpeg_() for image in (png, jpeg, webp)] == [None, jpeg.data, None]
    assert [image._repr_html_() is None for image in (png, jpeg, webp)] == [True, True, False]
    assert "data:image/webp;base64,UklGR" in str(webp._repr_html_())


@pytest.mark.parametrize("name", ["a.bmp", "a.GIF", "a.tiff", "a.tif", "a.avif", "a.heic", "a.ico", "a.jxl", "a.svg"])
def test_a_name_that_promises_another_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{name}: the image is png, and "):
        encoded("png").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "a.bin", "a.v2", "a.png", "a.PNG"])
def test_other_suffixes_are_accepted(name: str, tmp_path: Path) -> None:
    image = encoded("png")
    assert image.save(tmp_path / name).read_bytes() == image.data


def test_a_suffix_of_another_format_that_is_drawn_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for output_format='jpeg'"):
        encoded("png").save(tmp_path / "a.jpg")
