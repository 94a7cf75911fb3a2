"""The image formats that are read, with Pillow's decoders and, where it is installed, pillow-heif's."""

from __future__ import annotations

from functools import cache

from PIL import AvifImagePlugin

# What browsers and phones send. TIFF, PSD, EPS and their like have large decoders, some run programs, and nobody needs
# them here.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of the formats, as Pillow knows them. Their decoders are ready then."""
    # Images are read beside the engine, whose cores these decoders would take otherwise.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        import pillow_heif
    except ImportError:
        return _FORMATS
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.register_heif_opener(thumbnails=False)
    return (*_FORMATS, "HEIF")


def expected_formats() -> str:
    """Return the rule for an image's format, for error messages."""
    names = ", ".join(name.replace("HEIF", "HEIC") for name in readable_formats())
    return names if "HEIF" in readable_formats() else f"{names} (HEIC needs pillow-heif on the server)"
