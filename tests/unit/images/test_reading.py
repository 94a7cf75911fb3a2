"""Images of all kinds, whole, damaged and hostile."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triton_diffusers.errors import InvalidImage
from triton_diffusers.images import formats
from triton_diffusers.images.read import read_alpha_mask, read_image, read_mask
from triton_diffusers.settings import Settings

SETTINGS = Settings()
formats.readable_formats()  # HEIC can be written, too
SMALL = Settings(max_image_pixels=64 * 48)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(width: int = 64, height: int = 48) -> Image.Image:
    """Return a smooth image, red to the right and green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def read(data: bytes, limits: Settings = SETTINGS) -> np.ndarray[Any, Any]:
    image = read_image("image", data, limits)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour_type: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("JPEG", {"quality": 97, "subsampling": 0}),
        ("JPEG", {"quality": 97, "progressive": True}),
        ("GIF", {}),
        ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
    ],
)
def test_the_formats_are_read(kind: str, options: dict[str, Any]) -> None:
    assert np.abs(read(encoded(colours(), kind, **options)) - np.asarray(colours())).mean() < 6


def test_one_image_of_several_in_a_jpeg_is_read() -> None:
    # Phones store such a file, with a preview or a depth map after the image.
    data = encoded(colours(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 24))], quality=95)
    assert np.abs(read(data) - np.asarray(colours())).mean() < 6


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "EPS", "PDF", "TGA", "PCX", "JPEG2000"])
def test_other_formats_are_refused(kind: str) -> None:
    try:
        data = encoded(colours(), kind)
    except (KeyError, OSError):
        pytest.skip("this Pillow cannot write it")
    with pytest.raises(InvalidImage, match=r"^image: .* must be an image: PNG, JPEG, WEBP, GIF, BMP, AVIF, HEIC$"):
        read(data)


def test_heic_is_refused_with_a_hint_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = encoded(colours(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.readable_formats.cache_clear()
    try:
        with pytest.raises(InvalidImage, match=r"BMP, AVIF \(HEIC needs pillow-heif on the server\)$"):
            read(heic)
    finally:
        formats.readable_formats.cache_clear()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF"])
def test_a_turned_image_is_put_upright(kind: str, orientation: int) -> None:
    stored_as = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # what undoes each orientation
    upright = colours()
    stored = upright
    if orientation > 1:
        method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[stored_as[orientation]]
        stored = upright.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif.tobytes(), **({} if kind == "PNG" else {"quality": 97}))
    assert np.abs(read(data) - np.asarray(upright)).mean() < 5
    mask = read_mask("mask", data, SETTINGS)
    assert mask.size == upright.size


@pytest.mark.parametrize("exif", [b"Exif\x00\x00broken", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"\x00" * 30])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_does_not_matter(exif: bytes) -> None:
    assert read(encoded(colours(), "JPEG", exif=exif)).shape == (48, 64, 3)
    assert read(encoded(colours(), "PNG", exif=exif)).shape == (48, 64, 3)


def test_an_orientation_that_is_none_does_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(read(encoded(colours(), exif=exif)), np.asarray(colours()))


def half_transparent(mode: str) -> Image.Image:
    """Two pixels of black: one transparent, one opaque."""
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_over_white_in_an_image_and_over_black_in_a_mask(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    for mode in ("RGBA", "LA") if kind == "PNG" else ("RGBA",):
        assert read(encoded(half_transparent(mode), kind, **options))[0].tolist() == [[255] * 3, [0] * 3]
    white = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    white.putpixel((0, 0), (255, 255, 255, 0))
    mask = read_mask("mask", encoded(white, kind, **options), SETTINGS)
    assert (mask.mode, np.asarray(mask).tolist()) == ("L", [[0, 255]])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_alpha_mask_is_white_where_an_image_is_transparent(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    for mode in ("RGBA", "LA") if kind == "PNG" else ("RGBA",):
        mask = read_alpha_mask("mask", encoded(half_transparent(mode), kind, **options), SETTINGS)
        assert (mask.mode, np.asarray(mask).tolist()) == ("L", [[255, 0]])


def test_an_alpha_mask_of_an_opaque_image_is_black() -> None:
    assert not np.asarray(read_alpha_mask("mask", encoded(colours()), SETTINGS)).any()


def test_partial_transparency_is_a_mixture() -> None:
    assert read(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_may_have_a_transparent_colour(kind: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    data = encoded(image, kind, transparency=0)
    assert read(data)[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 0, 255]]
    assert np.asarray(read_mask("mask", data, SETTINGS))[0, 0] == 0


def test_a_palette_may_have_several_transparencies() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putdata([0, 1])
    assert read(encoded(image, transparency=bytes([128, 0])))[0].tolist() == [[127] * 3, [255] * 3]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (0, 0, 0)), ("L", 0), ("1", 0)])
def test_a_colour_may_be_transparent(mode: str, key: Any) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), (9, 9, 9) if mode == "RGB" else 255)
    assert read(encoded(image, transparency=key))[0, 0].tolist() == [255, 255, 255]


def test_greyscale_and_black_and_white() -> None:
    assert read(encoded(Image.new("L", (1, 1), 77)))[0, 0].tolist() == [77, 77, 77]
    assert read(encoded(Image.new("1", (1, 1), 1)))[0, 0].tolist() == [255, 255, 255]
    assert np.asarray(read_mask("mask", encoded(Image.new("1", (1, 1), 1)), SETTINGS))[0, 0] == 255


def test_16_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    data = encoded(Image.fromarray(values))
    assert read(data)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert np.asarray(read_mask("mask", data, SETTINGS))[0].tolist() == [0, 0, 1, 128, 255]


def test_16_bits_may_have_a_transparent_value_and_an_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 2
    rows = zlib.compress(b"\x00" + struct.pack(">HH", 0, 40_000))
    data = png(
        2, 1, 16, 0, chunk(b"tRNS", struct.pack(">H", 0)), chunk(b"eXIf", exif.tobytes()[6:]), chunk(b"IDAT", rows)
    )
    assert read(data)[0, :, 0].tolist() == [156, 255]


def test_16_bits_in_colour() -> None:
    rows = zlib.compress(b"\x00" + struct.pack(">HHH", 65535, 32768, 0))
    assert read(png(1, 1, 16, 2, chunk(b"IDAT", rows)))[0, 0].tolist() == [255, 128, 0]


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixel = read(encoded(red, "JPEG", quality=95))[8, 8]
    assert np.abs(pixel - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "HEIF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert np.abs(read(data)[4, 4] - [255, 0, 0]).max() < 6


def test_a_masks_luminance_counts() -> None:
    mask = read_mask("mask", encoded(Image.new("RGB", (1, 1), (255, 0, 0))), SETTINGS)
    assert np.asarray(mask)[0, 0] == 76


def test_the_same_bytes_give_the_same_pixels() -> None:
    data = encoded(colours(640, 480), "JPEG", quality=80)
    assert np.array_equal(read(data), read(data))
    assert read(data).shape == (480, 640, 3)


# What is too large, and must not be decoded.


# What is damaged.
