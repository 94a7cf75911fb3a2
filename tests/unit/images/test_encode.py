"""Images: pixels, sizes and formats."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from triton_diffusers.api.request import OutputFormat
from triton_diffusers.images.encode import Metadata, encode, encode_preview, resized, thumbnail, to_pixels


def waves(width: int = 64, height: int = 48) -> np.ndarray:
    """Return a smooth image, which lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 7), 127 + 100 * np.sin((x + y) / 11)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_the_decoders_range_becomes_pixels() -> None:
    values = np.array([-1, 1, 0, -9, 9, 0.5], np.float32)
    pixels = to_pixels(np.broadcast_to(values[None, None, :], (3, 2, 6)))
    assert pixels.shape == (2, 6, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, :, 0].tolist() == [0, 255, 128, 0, 255, 191]


def test_channels_go_last() -> None:
    decoded = np.stack([np.full((2, 2), value, np.float32) for value in (-1, 0, 1)])
    assert to_pixels(decoded)[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("output_format", OutputFormat)
@pytest.mark.parametrize("size", [(64, 48), (61, 47), (1, 1), (130, 90)])
def test_an_image_has_the_size_and_format_asked_for(output_format: OutputFormat, size: tuple[int, int]) -> None:
    image = opened(encode(resized(waves(), size), output_format))
    assert image.size == size
    assert image.format == output_format.value.upper()
    assert image.mode == "RGB"


@pytest.mark.parametrize("output_format", OutputFormat)
def test_metadata_leaves_the_pixels_alone(output_format: OutputFormat) -> None:
    plain = encode(waves(), output_format)
    told = encode(waves(), output_format, Metadata("a parameters text", "{}"))
    assert told != plain
    assert np.array_equal(np.asarray(opened(told)), np.asarray(opened(plain)))


@pytest.mark.parametrize("output_format", OutputFormat)
def test_without_metadata_an_image_says_nothing(output_format: OutputFormat) -> None:
    image = opened(encode(waves(), output_format))
    assert not image.getexif()
    assert not getattr(image, "text", {})


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_the_user_comment_is_unicode_as_exif_has_it(output_format: OutputFormat) -> None:
    comment = opened(encode(waves(), output_format, Metadata("红 apple", "{}"))).getexif().get_ifd(0x8769)
    assert comment[0x9286] == b"UNICODE\0" + "红 apple".encode("utf-16-be")


@pytest.mark.parametrize("spare", [-2, 0, 2])
def test_the_longest_text_that_a_jpeg_takes(spare: int) -> None:
    def comment(text: str) -> dict[int, bytes]:
        return opened(encode(waves(), OutputFormat.JPEG, Metadata(text, "{}"))).getexif().get_ifd(0x8769)

    longest = max(length for length in range(32_700, 32_780) if comment("x" * length))
    assert 65_533 - 2 * longest < 80, "an EXIF segment has little else in it"
    assert bool(comment("x" * (longest + spare))) is (spare <= 0)


def test_png_keeps_every_pixel() -> None:
    assert np.array_equal(np.asarray(opened(encode(waves(), OutputFormat.PNG))), waves())


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_less_quality_makes_smaller_files(output_format: OutputFormat) -> None:
    sizes = [len(encode(waves(), output_format, quality=quality)) for quality in (1, 50, 95, 100)]
    assert sizes == sorted(set(sizes))
    assert sizes[2] == len(encode(waves(), output_format))


def test_quality_does_not_matter_to_png() -> None:
    assert encode(waves(), OutputFormat.PNG, quality=1) == encode(waves(), OutputFormat.PNG)


@pytest.mark.parametrize("output_format", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_lossy_formats_stay_close(output_format: OutputFormat) -> None:
    image = np.asarray(opened(encode(waves(), output_format)), np.float32)
    assert np.abs(image - waves()).mean() < 3


def test_resizing_does_not_shift_or_flip() -> None:
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    small = resized(half, (50, 60))
    assert small[:, :20].max() == 0
    assert small[:, 30:].min() == 255


@pytest.mark.parametrize(("size", "shown"), [((512, 256), (128, 64)), ((256, 512), (64, 128)), ((64, 48), (64, 48))])
def test_a_preview_is_a_small_jpeg(size: tuple[int, int], shown: tuple[int, int]) -> None:
    image = opened(encode_preview(thumbnail(waves(*size))))
    assert image.format == "JPEG"
    assert image.size == shown
