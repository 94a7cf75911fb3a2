"""Encode and resize images, and convert a decoder's tensor to pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from triton_diffusers.api.request import DEFAULT_QUALITY, OutputFormat

_ENCODER_OPTIONS: dict[OutputFormat, dict[str, Any]] = {
    # For photograph-like images, level 6 takes several times as long as level 1 and saves a few per cent of the size.
    OutputFormat.PNG: {"compress_level": 1},
    OutputFormat.JPEG: {"subsampling": 0},
    OutputFormat.WEBP: {"method": 4},
}

_MAX_JPEG_EXIF_BYTES = 65_533  # of a marker's segment


def to_pixels(decoded: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return uint8 pixels (height, width, channels) of a decoder's floats in -1 … 1 (channels, height, width)."""
    scaled = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    return np.ascontiguousarray(scaled.round().astype(np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one image: the ``parameters`` text that image tools read, and the complete JSON record."""

    parameters: str
    record: str


def resized(pixels: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return uint8 pixels (height, width, 3) resized to ``size`` (width, height)."""
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def encode(
    pixels: np.ndarray[Any, Any],
    output_format: OutputFormat,
    metadata: Metadata | None = None,
    quality: int = DEFAULT_QUALITY,
) -> bytes:
    """Encode uint8 pixels (height, width, 3); PNG has no ``quality``.

    Of ``metadata``, PNG carries both texts, as chunks named ``parameters`` and ``triton_diffusers``; JPEG and WebP
    carry ``parameters`` as the EXIF user comment. EXIF of a JPEG is limited to 64 KiB; a longer text is left out.
    """
    options = {**_ENCODER_OPTIONS[output_format], "quality": quality}
    if metadata is not None and output_format is OutputFormat.PNG:
        options["pnginfo"] = _png_chunks(metadata)
    elif metadata is not None:
        exif = _exif(metadata)
        if output_format is not OutputFormat.JPEG or len(exif) <= _MAX_JPEG_EXIF_BYTES:
            options["exif"] = exif
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, output_format.value, **options)
    return buffer.getvalue()


def _png_chunks(metadata: Metadata) -> PngInfo:
    """Return the text chunks: tEXt for Latin-1 text, else iTXt, as Pillow decides."""
    chunks = PngInfo()
    chunks.add_text("parameters", metadata.parameters)
    chunks.add_text("triton_diffusers", metadata.record)
    return chunks


def _exif(metadata: Metadata) -> bytes:
    comment = b"UNICODE\0" + metadata.parameters.encode("utf-16-be")
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: comment}
    return exif.tobytes()


def thumbnail(pixels: np.ndarray[Any, Any], longest_side: int = 128) -> np.ndarray[Any, Any]:
    """Return uint8 pixels (height, width, 3) scaled down to ``longest_side``."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_side, longest_side))
    return np.asarray(image)


def encode_preview(pixels: np.ndarray[Any, Any]) -> bytes:
    """Encode uint8 pixels (height, width, 3) as a small JPEG for a progress display."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=80)
    return buffer.getvalue()
