"""Whether an artifact's files are what its manifest says: by their sizes at once, by their content on demand."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import xxhash

from triton_diffusers.artifacts.manifest import ArtifactFile, Manifest


def damage(folder: Path, manifest: Manifest, *, full: bool = False) -> str | None:
    """The first thing that is wrong with the files, in words; None if they are whole.

    Sizes are looked at, which takes no time; with ``full``, every byte is.
    """
    for path, file in manifest.paths().items():
        if fault := _fault(folder / path, file, full):
            return f"{path} {fault}"
    return None


def xxh3_of(path: Path) -> str:
    """XXH3 (128 bits) of a file's content, in hexadecimal.

    It finds what disks and copies do to a file. Who changes one on purpose changes the manifest beside it as well, so a
    cryptographic hash would find no more, and keeps a start waiting: SHA-256 of 4 GB takes 20 s on some processors.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def describe(folder: Path) -> tuple[ArtifactFile, ...]:
    """All files below a graph's folder, sorted, with their checksums."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        ArtifactFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, xxh3=xxh3_of(path))
        for path in paths
    )


def _fault(path: Path, file: ArtifactFile, full: bool) -> str | None:
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        if status.st_size != file.size:
            return f"has {status.st_size} bytes, not {file.size}"
        if full and xxh3_of(path) != file.xxh3:
            return "is damaged: its checksum is another"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return None
