"""Return unused memory to the system, and keep rarely read tensors on the disk."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event, Thread

import torch

logger = logging.getLogger(__name__)


def release_memory() -> None:
    """Return freed memory to the system; without effect unless the C library is glibc."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def on_disk(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """Return a copy of ``tensor`` that is mapped from an unlinked file in ``folder``: only the pages read take memory.

    Returns ``tensor`` itself if the file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder) as file:
            file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            file.flush()
            flat = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=tensor.dtype)
    except (OSError, RuntimeError) as error:  # RuntimeError: PyTorch cannot map the file
        logger.warning("a tensor of %d MB stays in memory: %s", tensor.nbytes >> 20, error)
        return tensor
    return flat.view(tensor.shape)


# Linux's MADV_PAGEOUT. The mapping may be gone since its address was read, and the address may be another thread's
# memory by now: unlike MADV_DONTNEED, this never loses what was written.
_MADV_PAGEOUT = 21
_DELETED = " (deleted)"
_EVICT_SECONDS = 0.1  # some hundred megabytes are read in that time


@contextmanager
def evict_file_pages(file: Path) -> Iterator[None]:
    """Evict a mapped file's pages from memory while it is read, and once more at the end."""
    over = Event()

    def drop() -> None:
        while not over.wait(_EVICT_SECONDS):
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
    """Evict the pages of a file that this process has mapped read-only; without effect unless on Linux."""
    madvise = ctypes.CDLL(None).madvise
    for begin, end in _mappings(file):
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)


def _mappings(file: Path) -> Sequence[tuple[int, int]]:
    """Return the addresses at which this process has mapped a file read-only."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    name = str(file.resolve())
    found = []
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        place, permissions, *_, path = line.split(maxsplit=5) if line.count("/") else (line, "", "")
        if path.removesuffix(_DELETED) == name and "w" not in permissions:
            begin, end = (int(address, 16) for address in place.split("-"))
            found.append((begin, end))
    return found
