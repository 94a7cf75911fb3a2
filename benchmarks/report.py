"""Output of a benchmark: progress on the screen, a JSON file, a Markdown table, and the machine's description.

Nothing that names a host or a path is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT

RESULTS = ROOT / "benchmarks" / "results"

_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "tritonclient", "nvidia-pytriton")
# Above this one-minute load average before the start, somebody else is computing.
_QUIET_LOAD = 0.5


class Progress:
    """Progress lines, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, versions and the load of the machine."""
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def warn_if_busy(described: dict[str, Any], say: Progress) -> None:
    """Say so if the machine was not idle before the measurement."""
    if described["load_average_before"] > _QUIET_LOAD:
        say(f"warning: the load average is {described['load_average_before']}; figures from a busy machine mean little")


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is left-aligned, the others are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine_line(described: dict[str, Any]) -> str:
    """Return a machine's description in one line."""
    packages = described["packages"]
    busy = described["load_average_before"] > _QUIET_LOAD
    return (
        f"{described['cpu']}, {described['cores']} cores, torch threads: {described['torch_threads']}, "
        f"torch {packages['torch']}, diffusers {packages['diffusers']}, Python {described['python']}, "
        f"commit {described['commit']}, {described['date']}; load average before the run: "
        f"{described['load_average_before']}{' – a busy machine, so **preliminary**' if busy else ''}"
    )


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _version(package: str) -> str:
    with contextlib.suppress(ImportError):
        return version(package)
    return "not installed"


def _commit() -> str:
    """Return the short hash of the checked-out commit, with a ``+`` if the library differs from it."""
    git = ("git", "-C", str(ROOT))
    try:
        said = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        differs = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "triton_diffusers", "model_repository"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip() + ("+" if differs.returncode else "")
