"""Images, as the encoded bytes that the server sent."""

from __future__ import annotations

import base64
import io
import mimetypes
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

# Formats that the system's table of types may lack.
_OTHER_SUFFIXES = (".apng", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".tga", ".qoi", ".exr", ".hdr")
# Suffixes of file names, and the formats that they promise.
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def format_of_suffix(suffix: str) -> str | None:
    """``png``, ``jpeg`` or ``webp`` for a file name's suffix (with its dot); None for any other."""
    return SUFFIXES.get(suffix.lower())


def is_image_suffix(suffix: str) -> bool:
    """Return True if a file name's suffix (with its dot) is that of an image format, whichever it is."""
    kind = mimetypes.guess_type(f"image{suffix}")[0] or ""
    return kind.startswith("image/") or suffix.lower() in _OTHER_SUFFIXES


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as a file's bytes."""

    data: bytes = field(repr=False)

    @property
    def format(self) -> str:
        """``png``, ``jpeg`` or ``webp``, by the first bytes; ``unknown`` for anything else."""
        if self.data.startswith(b"\x89PNG"):
            return "png"
        if self.data.startswith(b"\xff\xd8"):
            return "jpeg"
        if self.data.startswith(b"RIFF") and self.data[8:12] == b"WEBP":
            return "webp"
        return "unknown"

    def _repr_png_(self) -> bytes | None:
        """Show the image in a notebook."""
        return self.data if self.format == "png" else None

    def _repr_jpeg_(self) -> bytes | None:
        """Show the image in a notebook."""
        return self.data if self.format == "jpeg" else None

    def _repr_html_(self) -> str | None:
        """Show a WebP image in a notebook, which has no method of its own for those."""
        if self.format != "webp":
            return None
        return f'<img src="data:image/webp;base64,{base64.b64encode(self.data).decode()}"/>'

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bytes as they are, over what is there; returns the path.

        Raises ``ValueError`` if the name promises another image format, and ``OSError`` as writing does.
        """
        path = Path(path)
        promised = format_of_suffix(path.suffix)
        if promised is None and is_image_suffix(path.suffix):
            raise ValueError(
                f"{path.name}: the image is {self.format}, and {path.suffix} is not written here; "
                "use .png, .jpg or .webp, or Pillow: pil().save(…)"
            )
        if promised not in (None, self.format):
            raise ValueError(f"{path.name}: the image is {self.format}; ask for output_format={promised!r}")
        path.write_bytes(self.data)
        return path

    def pil(self) -> PilImage:
        """Return the decoded image. Needs Pillow (``pip install triton-diffusers-client[pil]``)."""
        import PIL.Image

        return PIL.Image.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True)
class Image(EncodedImage):
    """A generated image; ``seed`` alone reproduces it. ``is_nsfw``: the safety checker flagged it."""

    seed: int
    is_nsfw: bool = False
