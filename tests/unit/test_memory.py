"""Memory that an engine leaves behind goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Small pieces of memory stay with the C library when they are freed, as long as the last one of them is in use.
PROGRAM = """
from triton_diffusers.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

pieces = [b"x" * 100_000 for _ in range(2000)]
last = bytearray(100_000)
del pieces
freed = resident()
give_back()
print(freed - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000_000
