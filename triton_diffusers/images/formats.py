"""The image formats that are read, with Pillow's decoders and, where it is installed, pillow-heif's."""

from __future__ import annotations

from functools import cache

from PIL import AvifImagePlugin

# The formats of browsers and phones. TIFF, PSD, EPS and others have large decoders, some of which run programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")


@cache
def readable_formats() -> tuple[str, ...]:
    """Register the decoders, and return Pillow's names of the formats."""
    # Images are read beside the engine; more threads would take its cores.
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
