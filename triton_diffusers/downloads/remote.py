"""The protocol of download sources, their errors, and the check of their listings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class SourceError(RuntimeError):
    """A source is refused or cannot be downloaded; the message is one line with its name and the reason."""


class Unreachable(SourceError):
    """The source did not respond, or reported an outage; an earlier download can still be used."""


class Interrupted(SourceError):
    """A download ended early and can be resumed."""


MAX_FILES = 10_000
_MAX_NAME_BYTES = 255
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\\*?\[\]]+")  # without control characters, backslash and glob characters


@dataclass(frozen=True)
class RemoteFile:
    """A file by its path from the source's root; ``tag`` changes with its content.

    ``sha256`` and ``crc64`` are of the content, if known; the latter is decimal, as OSS writes it.
    """

    path: str
    size: int
    tag: str
    sha256: str = ""
    crc64: str = ""


class Remote(Protocol):
    """A repository or bucket."""

    def files(self) -> Sequence[RemoteFile]:
        """Return all files. Raises ``SourceError``, or ``Unreachable`` if there is no response."""
        ...

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        """Download ``files`` to their paths below ``folder``, resuming unfinished ones. Raises ``SourceError``."""
        ...


def check(files: Sequence[RemoteFile], max_bytes: int, source: str) -> None:
    """Raise ``SourceError`` if a listing is too large, or has names that are hidden or lead out of the folder."""
    if len(files) > MAX_FILES:
        raise SourceError(f"{source} is refused: it has {len(files)} files, the limit is {MAX_FILES}")
    for file in files:
        parts = file.path.split("/")
        if (
            any(part in ("", ".", "..") or len(part.encode()) > _MAX_NAME_BYTES for part in parts)
            or not _PLAIN.fullmatch(file.path)
            or file.size < 0
        ):
            raise SourceError(f"{source} is refused: the file name {file.path[:80]!r} is invalid")
    names = {file.path for file in files}
    for file in files:
        parts = file.path.split("/")
        if any("/".join(parts[:count]) in names for count in range(1, len(parts))):
            raise SourceError(f"{source} is refused: {file.path[:80]!r} is below another file")
    if (total := sum(file.size for file in files)) > max_bytes:
        raise SourceError(
            f"{source} is refused: it has {total / 1e9:.1f} GB, the limit is {max_bytes / 1e9:g} GB "
            "(TRITON_DIFFUSERS_MAX_SOURCE_GIGABYTES)"
        )
