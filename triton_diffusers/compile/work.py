"""The work folder of a build: beside the artifacts, kept after a crash so that the next build can resume.

optimized_model/.work/
  <engine>-<precision>.lock   held by the build and its worker processes: all must end before another build starts
  <engine>-<precision>/
    made-of.json    the inputs of the graphs here; a build from another model, version or machine starts over
    artifact/       the complete graphs, by name
    complete/       <graph>.json: the files of each complete graph
    …               unfinished parts
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from triton_diffusers.artifacts import ArtifactFile
from triton_diffusers.artifacts.damage import describe
from triton_diffusers.compile.errors import BuildError, BuildInProgress
from triton_diffusers.util.files import atomic_write, open_locked

WORK = ".work"
_FILES = TypeAdapter(tuple[ArtifactFile, ...])


class WorkFolder:
    """The work folder of one artifact. Its methods raise ``OSError`` if nothing can be written."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / WORK / name
        self.artifact = self.folder / "artifact"
        self.images = self.folder / "images"
        self._complete = self.folder / "complete"
        self._made_of = self.folder / "made-of.json"
        self._name = name
        self.lock = -1

    def open(self, *, wait: bool = False) -> None:
        """Take the lock. If another build, or a worker of one, holds it: ``wait``, or raise ``BuildInProgress``."""
        lock = self.folder.with_name(f"{self._name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock = open_locked(lock, wait=wait)
        except BlockingIOError:
            owner = lock.read_text(encoding="utf-8", errors="replace")[:20].strip() or "unknown"
            raise BuildInProgress(
                f"another build of {self._name} is running in {self.folder} (process {owner})"
            ) from None
        try:
            os.ftruncate(self.lock, 0)
            os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock. A worker that has not ended still holds it."""
        os.close(self.lock)

    def prepare(self, made_of: Mapping[str, Any], *, force: bool = False) -> None:
        """Keep finished parts only if they were made of ``made_of``; with ``force``, keep nothing."""
        self.folder.mkdir(exist_ok=True)  # only under the lock: a build that ends deletes it
        if force or _read_json(self._made_of) != made_of:
            self.discard()
        for folder in (self.artifact, self.images, self._complete):
            folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._made_of, json.dumps(made_of))

    def discard(self) -> None:
        """Delete everything but the lock."""
        self._made_of.unlink(missing_ok=True)  # first: remains of a crash in here must not be reused
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    @property
    def bytes(self) -> int:
        """Return the size of all files in the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def part(self, name: str) -> Path:
        """Return a new empty folder for unfinished output."""
        folder = self.folder / f"{name}.part"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def log(self, name: str) -> Path:
        """Return the log file of the worker for ``name``."""
        return self.folder / f"{name}.log"

    def graph(self, name: str) -> tuple[ArtifactFile, ...] | None:
        """Return the files of a graph that an earlier build finished; None if it did not, or if they are damaged."""
        try:
            files = _FILES.validate_json((self._complete / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return files if files and describe(self.artifact / name) == files else None

    def complete(self, name: str) -> tuple[ArtifactFile, ...]:
        """Move the output in ``part(name)`` to the finished graphs. Raises ``BuildError`` if it is empty."""
        made, final = self.folder / f"{name}.part", self.artifact / name
        files = describe(made)
        if not files:
            raise BuildError(f"{name}: the compiler wrote no file")
        if final.exists():
            shutil.rmtree(final)
        made.rename(final)
        atomic_write(self._complete / f"{name}.json", _FILES.dump_json(files).decode())
        return files


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
