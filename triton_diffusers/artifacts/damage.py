"""Checks of an artifact's files against its manifest: sizes always, content on demand."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import xxhash

from triton_diffusers.artifacts.manifest import ArtifactFile, Manifest


def damage(folder: Path, manifest: Manifest, *, full: bool = False) -> str | None:
    """Return the first fault of the files, in words; None if they are intact.

    Sizes are compared, which takes no time; with ``full``, checksums too.
    """
    for path, file in manifest.paths().items():
        if fault := _fault(folder / path, file, full):
            return f"{path} {fault}"
    return None


def xxh3_of(path: Path) -> str:
    """Return the XXH3 (128 bits) of a file's content, in hexadecimal.

    It detects corruption by disks and copies. A cryptographic hash would not stop an attacker, who can change the
    manifest too, and would delay a start: SHA-256 of 4 GB takes 20 s on some processors.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def describe(folder: Path) -> tuple[ArtifactFile, ...]:
    """Return all files below a graph's folder, sorted, with their checksums."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        ArtifactFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, xxh3=xxh3_of(path))
        for path in paths
    )


def _fault(path: Path, file: ArtifactFile, full: bool) -> str | None:
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        if status.st_size != file.size:
            return f"has {status.st_size} bytes, not {file.size}"
        if full and xxh3_of(path) != file.xxh3:
            return "is damaged: its checksum is different"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return None
