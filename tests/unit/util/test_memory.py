"""Memory that an engine leaves behind goes back to the system, and what it reads little of is not in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from triton_diffusers.util.memory import on_disk

ROOT = Path(__file__).resolve().parents[3]
LARGE = """
import sys, torch
from pathlib import Path
from triton_diffusers.util.memory import on_disk

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
table = torch.full((1000, 50_000), 7, dtype=torch.bfloat16)
there = resident()
table = on_disk(table, Path(sys.argv[1]))
assert table[500].sum() == 350_000
print(there - before, resident() - before)
"""
# Small pieces of memory stay with the C library when they are freed, as long as the last one of them is in use.
PROGRAM = """
from triton_diffusers.util.memory import release_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

pieces = [b"x" * 100_000 for _ in range(2000)]
last = bytearray(100_000)
del pieces
freed = resident()
release_memory()
print(freed - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_table_on_disk_is_not_in_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    in_memory, on_disk = map(int, done.stdout.split())
    assert in_memory > 90_000_000
    assert on_disk < 20_000_000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_table_on_disk_is_the_same_and_leaves_no_file(tmp_path: Path, dtype: torch.dtype) -> None:
    table = torch.randn(50, 30).to(dtype)
    stored = on_disk(torch.nn.Parameter(table), tmp_path / "new")
    assert (stored.dtype, torch.equal(stored, table), stored is table) == (dtype, True, False)
    assert not list((tmp_path / "new").iterdir())


def test_without_a_file_the_tensor_stays_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    table = torch.randn(5, 3)
    assert on_disk(table, tmp_path / "file") is table
    assert "a tensor of 0 MB stays in memory: " in caplog.text
