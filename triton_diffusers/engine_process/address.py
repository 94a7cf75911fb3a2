"""Addresses of engine processes: which models share one, and where it listens."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.settings import Settings


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """One engine process: ``number`` counts the engines of equal settings from 0, ``device`` is the one that it uses.

    Models with equal settings have equal addresses, so they share the engine.
    """

    runtime_dir: Path
    name: str
    number: int
    device: str

    @property
    def socket(self) -> Path:
        """Path of the Unix socket."""
        return self.runtime_dir / f"{self.name}.sock"

    @property
    def lock(self) -> Path:
        """Path of the lock file; its holder starts and supervises the engine."""
        return self.runtime_dir / f"{self.name}.lock"


def engine_addresses(settings: Settings) -> tuple[EngineAddress, ...]:
    """Return the addresses of the engines of a model, one for each device in its settings.

    Raises:
        PermissionError: the runtime directory belongs to another user, who could send messages to the engine.
    """
    folder = settings.runtime_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"the runtime directory {folder} belongs to another user; set another")
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]
    return tuple(
        EngineAddress(folder, f"engine-{digest}-{number}", number, device)
        for number, device in enumerate(settings.devices)
    )
