"""The processes of a server and the shared memory that they hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.integration.conftest import RunningTriton

ENGINE = "triton_diffusers.engine_process"  # in the command of an engine process


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
    (tritonserver,) = (pid for pid in children(server.process.pid) if ENGINE not in command_line(pid))
    return [tritonserver, *children(tritonserver)]


def engines(server: RunningTriton) -> list[int]:
    """Return the engine processes that the launcher has started, the first engine first."""
    found = [pid for pid in children(server.process.pid) if ENGINE in command_line(pid)]
    return sorted(found, key=lambda pid: command_line(pid)[-1])


def stub(server: RunningTriton, model: str) -> int:
    """Return the process of a model."""
    (found,) = (pid for pid in family(server) if any(f"/{model}/1/" in word for word in command_line(pid)))
    return found


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return [""]


def region_prefix(server: RunningTriton) -> str:
    (tritonserver, *_) = family(server)
    found = re.search(r"shm-region-prefix-name=([^\0]+)", Path(f"/proc/{tritonserver}/cmdline").read_text())
    assert found
    return found[1]


def regions(prefix: str) -> list[str]:
    return [region.name for region in Path("/dev/shm").iterdir() if region.name.startswith(prefix)]
