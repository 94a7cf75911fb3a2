"""The state of a training run: a folder with a pid file, a log and checkpoints, and a clean stop on SIGTERM."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch


class Run:
    """One stage's run in `<root>/<stage>/`. SIGTERM and SIGINT ask for a stop: see `stopping`.

    Only the primary of several workers writes the pid file.
    """

    def __init__(self, root: Path, stage: str, primary: bool = True) -> None:
        self.root = root
        self.folder = root / stage
        self.folder.mkdir(parents=True, exist_ok=True)
        if primary:
            (root / "train.pid").write_text(f"{os.getpid()}\n")
        self.stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def log(self, **values: Any) -> None:
        """Append one line to `log.jsonl`."""
        record = {"time": time.strftime("%H:%M:%S"), **values}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint in one step, so that a kill leaves the old or the new one."""
        part = self.checkpoint_path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint_path)

    def load(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or None."""
        return load_checkpoint(self.root, self.folder.name)


def load_checkpoint(root: Path, stage: str) -> dict[str, Any] | None:
    """Return the last checkpoint of a stage, or None; for those who only read."""
    path = root / stage / "checkpoint.pt"
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
