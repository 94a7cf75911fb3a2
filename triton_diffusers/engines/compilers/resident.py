"""Memory that a mapped file takes."""

from __future__ import annotations

import ctypes
from pathlib import Path

_MADV_DONTNEED = 4  # Linux: read again from the file if they are needed after all


def drop_pages(file: Path) -> None:
    """Give back the pages of a file that this process has mapped to read; does nothing where that is not Linux."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    name = str(file.resolve())
    madvise = ctypes.CDLL(None).madvise
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        place, permissions, *_, path = line.split(maxsplit=5) if line.count("/") else (line, "", "")
        if path == name and "w" not in permissions:
            begin, end = (int(address, 16) for address in place.split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
