"""Memory that a mapped file takes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

_MADV_DONTNEED = 4  # Linux: read again from the file if they are needed after all
_DELETED = " (deleted)"
_EVERY = 0.1  # seconds; some hundred megabytes are read in that time


@contextmanager
def few_pages(file: Path) -> Iterator[None]:
    """Give back, meanwhile and at the end, the pages of a file that are read once and not again."""
    over = Event()

    def drop() -> None:
        while not over.wait(_EVERY):
            drop_pages(file)

    dropping = Thread(target=drop, name="drop-pages", daemon=True)
    dropping.start()
    try:
        yield
    finally:
        over.set()
        dropping.join()
        drop_pages(file)


def drop_pages(file: Path) -> None:
    """Give back the pages of a file that this process has mapped to read; does nothing where that is not Linux."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    name = str(file.resolve())
    madvise = ctypes.CDLL(None).madvise
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        place, permissions, *_, path = line.split(maxsplit=5) if line.count("/") else (line, "", "")
        if path.removesuffix(_DELETED) == name and "w" not in permissions:
            begin, end = (int(address, 16) for address in place.split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
