"""The user's directory for files that outlive a process: logs, job tables, keys."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Return ``triton-diffusers`` in ``$XDG_STATE_HOME``, which has to be absolute, else in ``~/.local/state``."""
    chosen = os.environ.get("XDG_STATE_HOME", "")
    base = Path(chosen) if chosen.startswith("/") else Path.home() / ".local" / "state"
    return base / "triton-diffusers"
