"""Read untrusted encoded images: RGB images and one-channel masks, upright."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from triton_diffusers.api.base64 import check_size
from triton_diffusers.errors import InvalidImage
from triton_diffusers.images.formats import expected_formats, readable_formats
from triton_diffusers.settings import Settings

# A progressive JPEG usually has ten scans. The decoder walks over the whole image for each, and an empty scan takes
# some thirty bytes, so without this limit a small file could keep a thread busy for hours.
_JPEG = ("JPEG", "MPO")
_SCAN = b"\xff\xda"
_MAX_SCANS = 100

# JPEG's own limit. Scaling takes 48 bytes for each pixel of a line, so a line of 64 million would take gigabytes.
_MAX_SIDE = 65_535

# Not ``ImageOps.exif_transpose``: it also rewrites the metadata, and fails where they are damaged.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)


# Bytes per pixel while an image is decoded and flattened, as measured: the decoder's own, Pillow's (4 for RGB), and
# those of a turned or flattened copy.
_DECODING_BYTES = 16
_DECODING_BYTES_OF = {"WEBP": 24, "AVIF": 24, "HEIF": 24}  # they decode into buffers of their own first
_PROGRESSIVE_BYTES = 6  # of a JPEG's coefficients, which are held at full size

Size = tuple[int, int]


def read_image(field: str, data: bytes, settings: Settings, target: Size | None = None) -> Image.Image:
    """Return an RGB image: upright, its first frame, transparency over white, colour profile ignored.

    ``target`` is the size that it will be scaled to. A JPEG that is much larger is decoded at a half, a quarter or an
    eighth of its size, at least twice the target's.

    Raises:
        InvalidImage: it is not a whole image of an allowed format and size.
    """
    return _read(field, data, settings, target, mode="RGB", background="white")


def read_mask(field: str, data: bytes, settings: Settings, target: Size | None = None) -> Image.Image:
    """Return a mask (L): its luminance, white is repainted, transparency over black; else like ``read_image``."""
    return _read(field, data, settings, target, mode="L", background="black")


def read_alpha_mask(field: str, data: bytes, settings: Settings, target: Size | None = None) -> Image.Image:
    """Return a mask (L) in which the transparent parts of an image are white, whatever their colour."""
    with _opened(field, data, settings) as image:
        _reduce(image, target)
        image.load()
        upright = _upright(_of_8_bits(image), _orientation(image))
        if not upright.has_transparency_data:
            return Image.new("L", upright.size)
        return ImageChops.invert(upright.convert("RGBA").getchannel("A"))


def decoding_bytes(field: str, data: bytes, settings: Settings, target: Size | None = None) -> int:
    """Return the most memory that reading an image takes, judged by its header. Raises ``InvalidImage``."""
    with _opened(field, data, settings) as image:
        pixels = image.width * image.height
        coefficients = pixels * _PROGRESSIVE_BYTES if image.info.get("progressive") else 0
        _reduce(image, target)
        per_pixel = _DECODING_BYTES_OF.get(image.format or "", _DECODING_BYTES)
        return image.width * image.height * per_pixel + coefficients


def _read(
    field: str, data: bytes, settings: Settings, target: Size | None, *, mode: str, background: str
) -> Image.Image:
    with _opened(field, data, settings) as image:
        _reduce(image, target)
        image.load()
        return _flat(_upright(_of_8_bits(image), _orientation(image)), mode, background)


@contextmanager
def _opened(field: str, data: bytes, settings: Settings) -> Iterator[Image.Image]:
    """Open an image whose header is acceptable; nothing is decoded yet. All its errors are ``InvalidImage``."""
    check_size(field, len(data), settings)
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            _check_header(field, image, data, settings)
            yield image
    except InvalidImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImage(field, "a decompression bomb", _pixels(settings)) from error
    except UnidentifiedImageError as error:
        # The message does not describe the bytes: a link may have led to data that only the server can read.
        raise InvalidImage(field, f"{len(data)} bytes", f"must be an image: {expected_formats()}") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors for damaged content
        raise InvalidImage(field, f"{len(data)} bytes", "the image is damaged or cut short") from error


def _check_header(field: str, image: Image.Image, data: bytes, settings: Settings) -> None:
    """Raise ``InvalidImage`` for an image that would take too much memory or time, before it is decoded."""
    if image.width * image.height > settings.max_image_pixels:
        raise InvalidImage(field, f"{image.width}×{image.height}", _pixels(settings))
    if max(image.size) > _MAX_SIDE:
        raise InvalidImage(field, f"{image.width}×{image.height}", f"at most {_MAX_SIDE} pixels a side")
    if image.format in _JPEG and data.count(_SCAN) > _MAX_SCANS:
        raise InvalidImage(field, f"{data.count(_SCAN)} scans", f"at most {_MAX_SCANS} in a JPEG")


def _pixels(settings: Settings) -> str:
    return f"at most {settings.max_image_pixels} pixels"


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit greyscale scaled to 8 bits (Pillow would clip it), any other image unchanged."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  # the image is usable without its metadata
        return None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _reduce(image: Image.Image, target: Size | None) -> None:
    """Set a JPEG to be decoded at a fraction of its size, if that is still at least twice the target's."""
    if target is None or image.format not in _JPEG:
        return
    width, height = target if _orientation(image) not in _SWAPS_SIDES else target[::-1]
    image.draft(None, (2 * width, 2 * height))  # None: in the file's own mode


def _flat(image: Image.Image, mode: str, background: str) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert(mode)
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    flat = Image.new("RGB", image.size, background)
    flat.paste(with_alpha, mask=with_alpha)
    return flat if mode == flat.mode else flat.convert(mode)
