"""Pictures, as the encoded bytes that the server sent."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_SUFFIXES = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}


def format_of_suffix(suffix: str) -> str | None:
    """``png``, ``jpeg`` or ``webp`` for a file name's suffix (with its dot); None for any other."""
    return next((name for name, suffixes in _SUFFIXES.items() if suffix.lower() in suffixes), None)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture as a file's bytes."""

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the bytes as they are, over what is there; returns the path.

        Raises ``ValueError`` if the name promises another picture format, and ``OSError`` as writing does.
        """
        path = Path(path)
        promised = format_of_suffix(path.suffix)
        if promised not in (None, self.format):
            raise ValueError(f"{path.name}: the picture is {self.format}; ask for output_format={promised!r}")
        path.write_bytes(self.data)
        return path

    def pil(self) -> PilImage:
        """The decoded picture. Needs Pillow (``pip install triton-diffusers-client[pil]``)."""
        import PIL.Image

        return PIL.Image.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True)
class Image(EncodedImage):
    """One that was drawn; ``seed`` makes it again, alone. ``is_nsfw``: the safety checker blackened it."""

    seed: int
    is_nsfw: bool = False
