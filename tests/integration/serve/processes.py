"""The processes of a server and the shared memory that they hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.integration.conftest import RunningTriton


def is_gone(pid: int) -> bool:
    """Return True if a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` started."""
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def family(server: RunningTriton) -> list[int]:
    """tritonserver and its model processes."""
    (tritonserver,) = children(server.process.pid)
    return [tritonserver, *children(tritonserver)]


def region_prefix(server: RunningTriton) -> str:
    (tritonserver, *_) = family(server)
    found = re.search(r"shm-region-prefix-name=([^\0]+)", Path(f"/proc/{tritonserver}/cmdline").read_text())
    assert found
    return found[1]


def regions(prefix: str) -> list[str]:
    return [region.name for region in Path("/dev/shm").iterdir() if region.name.startswith(prefix)]
