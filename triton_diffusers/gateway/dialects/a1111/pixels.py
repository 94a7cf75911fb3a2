"""Work on images that the web UI does and the models do not: masks, crops, resizing."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo

from triton_diffusers.errors import InvalidImage
from triton_diffusers.images.read import read_image, read_mask
from triton_diffusers.settings import Settings

# Coarse to fine: a far pixel is filled by the coarse ones alone, one near the edge by the fine ones.
_FILL_RADII = (128, 32, 8, 2)
_RESAMPLING = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOptions:
    """Treatment of a mask: see the web UI's fields of the same names. ``padding`` is None for the whole image."""

    blur: float = 0.0
    invert: bool = False
    fill: bool = False
    padding: int | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """The part of an image that is drawn; the mask (PNG) says where it is pasted into the image."""

    image: bytes
    mask: bytes
    box: Box


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image and a mask (PNG) for the model, and the patch that its result is; None: the whole image."""

    image: bytes
    mask: bytes
    patch: Patch | None


def prepare(image_data: bytes, mask_data: bytes, options: MaskOptions, size: Size, settings: Settings) -> Prepared:
    """Return the image and mask of an inpainting that is drawn at ``size``. Raises: InvalidImage."""
    image = read_image("init_images", image_data, settings)
    mask = read_mask("mask", mask_data, settings)
    if mask.size != image.size:
        mask = mask.resize(image.size)
    if options.invert:
        mask = ImageOps.invert(mask)
    if options.blur:
        mask = mask.filter(ImageFilter.GaussianBlur(options.blur))
    box = None if options.padding is None else _box_around(mask, options.padding, size)
    if options.fill:
        image = _filled(image, mask)
    if box is None:
        return Prepared(_png(image), _png(mask), None)
    return Prepared(_png(image.crop(box)), _png(mask.crop(box)), Patch(image_data, _png(mask), box))


def pasted(drawn_data: bytes, patch: Patch, quality: int, settings: Settings) -> bytes:
    """Return the whole image with the drawn part in it, in the encoding of the drawn part, with its metadata."""
    whole = read_image("init_images", patch.image, settings)
    with Image.open(io.BytesIO(drawn_data)) as drawn, Image.open(io.BytesIO(patch.mask)) as mask:
        left, top, right, bottom = patch.box
        part = drawn.convert("RGB").resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        whole.paste(part, patch.box, mask.crop(patch.box))
        return _encoded_like(drawn, whole, quality)


def resized(field: str, data: bytes, size: Size, upscaler: str, settings: Settings) -> bytes:
    """Return an image (PNG) stretched to a size. Raises: InvalidImage."""
    return _png(read_image(field, data, settings).resize(size, _RESAMPLING[upscaler.lower()]))


def _box_around(mask: Image.Image, padding: int, size: Size) -> Box | None:
    """Return the box around a mask, with padding, in the proportions of ``size`` as far as the image has room."""
    found = mask.getbbox()
    if found is None:
        raise InvalidImage("mask", "a black image", "must have a white part")
    left, right = _stretched(found[0] - padding, found[2] + padding, 0, mask.width)
    top, bottom = _stretched(found[1] - padding, found[3] + padding, 0, mask.height)
    width, height = right - left, bottom - top
    left, right = _stretched(left, right, round(height * size[0] / size[1]), mask.width)
    top, bottom = _stretched(top, bottom, round(width * size[1] / size[0]), mask.height)
    return left, top, right, bottom


def _stretched(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Return a stretch around another one, of at least ``length``, between 0 and ``limit``."""
    start, end = max(0, start), min(limit, end)
    length = min(max(length, end - start), limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length


def _filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return an image whose masked part continues the colours around it."""
    known = ImageChops.invert(mask.point(lambda value: 255 if value >= 128 else 0))
    if not known.getbbox():
        return image
    with_alpha = image.convert("RGBA")
    with_alpha.putalpha(known)
    premultiplied = with_alpha.convert("RGBa")  # so that masked pixels add nothing
    result = Image.new("RGBA", image.size)
    for radius in _FILL_RADII:
        blurred = premultiplied.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        blurred.putalpha(blurred.getchannel("A").point(lambda value: min(255, 4 * value)))
        result = Image.alpha_composite(result, blurred)
    mean = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).resize(image.size)
    mean.paste(result.convert("RGB"), mask=result.getchannel("A"))
    return Image.composite(image, mean, known)


def _encoded_like(original: Image.Image, image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    if original.format == "PNG":
        chunks = PngInfo()
        for name, text in original.info.items():
            if isinstance(name, str) and isinstance(text, str):
                chunks.add_text(name, text)
        image.save(buffer, "PNG", pnginfo=chunks, compress_level=1)
    else:
        image.save(buffer, original.format, quality=quality, exif=original.info.get("exif", b""))
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
