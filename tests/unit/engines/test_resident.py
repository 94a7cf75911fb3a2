"""Pages of mapped files are evicted, and read again when needed."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from tests.waiting import until
from triton_diffusers.util import memory
from triton_diffusers.util.memory import drop_pages, evict_file_pages

SIZE = 32 * 2**20
pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux counts pages")


def resident(file: Path) -> int:
    """Return the bytes of a mapped file in this process' memory."""
    smaps = Path("/proc/self/smaps").read_text()
    found = re.search(re.escape(str(file)) + r"(?: \(deleted\))?\n(?:.*\n)*?Rss:\s+(\d+) kB", smaps)
    assert found, "it is not mapped"
    return int(found[1]) * 1024


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\1" * SIZE)
    return path


@pytest.mark.parametrize("deleted", [False, True])
def test_evicted_pages_can_be_read_again(file: Path, deleted: bool) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        if deleted:
            file.unlink()
        assert mapped[:].count(1) == SIZE
        assert resident(file) == SIZE
        drop_pages(file)
        assert resident(file) == 0
        assert mapped[:].count(1) == SIZE


def test_pages_are_given_back_meanwhile_and_at_the_end(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with evict_file_pages(file):
            assert mapped[:].count(1) == SIZE
            until(lambda: not resident(file))
            assert mapped[:].count(1) == SIZE
        assert resident(file) == 0


def test_written_pages_are_not_evicted(file: Path) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0:3] = b"new"
        drop_pages(file)
        assert mapped[0:4] == b"new\1"


def test_memory_that_replaces_a_mapping_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler unmaps its file at any time, and another thread may get the addresses before the pages are evicted."""
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as others:
        others[:] = b"\2" * SIZE
        begin = ctypes.addressof(ctypes.c_char.from_buffer(others))
        monkeypatch.setattr(memory, "_mappings", lambda found: [(begin, begin + SIZE)])
        drop_pages(file)
        assert others[:].count(2) == SIZE
