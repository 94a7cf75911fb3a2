"""What is said when a model directory cannot be fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class SourceError(RuntimeError):
    """A source cannot be fetched or is refused; the message is one line that names it and says why."""


class Unreachable(SourceError):
    """The other side did not answer, or said that it is out of order; what was fetched before can still be used."""


class Interrupted(SourceError):
    """A download ended early; it can be resumed."""


MOST_FILES = 10_000
_MOST_BYTES_OF_A_NAME = 255
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\*?\[\]]+")  # no control characters, no backslash, none of a pattern's


@dataclass(frozen=True)
class RemoteFile:
    """A file by its path from the source's root; ``tag`` changes when its content does; hashes where they are known.

    ``sha256`` and ``crc64`` are of the content, the latter as OSS writes it, in decimal.
    """

    path: str
    size: int
    tag: str
    sha256: str = ""
    crc64: str = ""


class Remote(Protocol):
    """One repository or bucket."""

    def files(self) -> Sequence[RemoteFile]:
        """Everything that is there. Raises ``SourceError``; ``Unreachable`` if nobody answers."""
        ...

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        """Bring ``files`` to their paths below ``folder``, resuming what was begun. Raises ``SourceError``."""
        ...


def check(files: Sequence[RemoteFile], most_bytes: int, source: str) -> None:
    """Refuse a listing whose names lead out of a folder or hide in it, or that is too large. Raises ``SourceError``."""
    if len(files) > MOST_FILES:
        raise SourceError(f"{source} is refused: it has {len(files)} files; at most {MOST_FILES} are fetched")
    for file in files:
        parts = file.path.split("/")
        if (
            any(part in ("", ".", "..") or len(part.encode()) > _MOST_BYTES_OF_A_NAME for part in parts)
            or not _PLAIN.fullmatch(file.path)
            or file.size < 0
        ):
            raise SourceError(f"{source} is refused: it lists a file with the name {file.path[:80]!r}")
    names = {file.path for file in files}
    for file in files:
        parts = file.path.split("/")
        if any("/".join(parts[:count]) in names for count in range(1, len(parts))):
            raise SourceError(f"{source} is refused: {file.path[:80]!r} is below another file")
    if (total := sum(file.size for file in files)) > most_bytes:
        raise SourceError(
            f"{source} is refused: {total / 1e9:.1f} GB; at most {most_bytes / 1e9:g} GB are fetched "
            "(TRITON_DIFFUSERS_MAX_SOURCE_GIGABYTES)"
        )
