"""Third-party clients from package registries, each in an environment of its own in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CLIENTS = Path(__file__).parent / "clients"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triton-diffusers-tests"
MADE_WITHIN = 600.0  # seconds: packages come from a registry


def python_client(script: str, *requirements: str) -> list[str]:
    """Return a command that runs a script with packages; its environment is made once."""
    place = CACHE / "-".join(requirements).replace("==", "-")

    def make(folder: Path) -> None:
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *requirements])

    once(place, make)
    return [str(place / "bin" / "python"), str(CLIENTS / script)]


def node_packages(*requirements: str) -> Path:
    """Return a folder with packages of Node's; it is made once."""
    place = CACHE / "-".join(["node", *requirements]).replace("/", "-").replace("@", "-")

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *requirements])

    once(place, make)
    return place


def once(place: Path, make: Callable[[Path], None]) -> None:
    """Make a folder, unless it is complete already."""
    complete = place / "complete"
    if not complete.exists():
        shutil.rmtree(place, ignore_errors=True)
        make(place)
        complete.touch()


def run(command: Sequence[str]) -> str:
    """Return what a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=MADE_WITHIN, check=False)
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout
