"""Memory that need not be there: freed and kept by the C library, or of large tensors of which little is read."""

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


def give_back() -> None:
    """Return it to the system; does nothing where the C library is not glibc."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def on_disk(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """A copy of ``tensor``, of which only those pages are in memory that are read.

    They are of a file in ``folder`` that has lost its name, so that nobody can change it, and that is gone with the
    process. Where none can be written, this is ``tensor`` itself.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder) as file:
            file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            file.flush()
            flat = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=tensor.dtype)
    except (OSError, RuntimeError) as error:  # PyTorch's, where a file cannot be mapped
        logger.warning("a table of %d MB stays in memory: %s", tensor.nbytes >> 20, error)
        return tensor
    return flat.view(tensor.shape)


# Linux's MADV_PAGEOUT. The mapping may be gone since its address was read, and the address may be another thread's
# memory by now: unlike MADV_DONTNEED, this never loses what was written.
_MADV_PAGEOUT = 21
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
    madvise = ctypes.CDLL(None).madvise
    for begin, end in _mappings(file):
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)


def _mappings(file: Path) -> Sequence[tuple[int, int]]:
    """Return the addresses at which this process has mapped a file to read."""
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
