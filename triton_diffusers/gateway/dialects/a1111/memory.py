"""Memory of the gateway's machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")


def memory_view() -> dict[str, Any]:
    """Return memory in bytes, in the web UI's form: ``used`` is this process's. The models' GPUs are elsewhere."""
    page = os.sysconf("SC_PAGE_SIZE")
    used = int(_STATM.read_text().split()[1]) * page
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    return {"ram": {"free": free, "used": used, "total": total}, "cuda": {"error": "unavailable"}}
