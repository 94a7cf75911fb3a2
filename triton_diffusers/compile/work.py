"""Where a build happens: a folder beside the artifacts that outlives a crash; the next build goes on from there.

optimized_model/.work/
  <engine>-<precision>.lock   held by the build and its child processes: all have to end before another one begins
  <engine>-<precision>/
    made-of.json    what the graphs here were built from; another model, version or machine begins anew
    artifact/       the graphs that are complete, under their names
    complete/       <graph>.json: the files of each, written when it was complete
    …               what is being made
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from triton_diffusers.artifacts import ArtifactFile
from triton_diffusers.artifacts.damage import describe
from triton_diffusers.compile.errors import AtWork, BuildError

WORK = ".work"
_FILES = TypeAdapter(tuple[ArtifactFile, ...])


class WorkFolder:
    """The work folder of one artifact. Its methods raise ``OSError`` where nothing can be written."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / WORK / name
        self.artifact = self.folder / "artifact"
        self.pictures = self.folder / "pictures"
        self._complete = self.folder / "complete"
        self._made_of = self.folder / "made-of.json"
        self._name = name
        self.lock = -1

    def open(self, *, wait: bool = False) -> None:
        """Take the lock. If another build, or a child process of one, has it: ``wait``, or raise ``AtWork``."""
        lock = self.folder.with_name(f"{self._name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AtWork(f"another build of {self._name} is at work in {self.folder} (process {owner})") from None
        except BaseException:
            os.close(descriptor)
            raise
        self.lock = descriptor

    def close(self) -> None:
        """Give the lock back. A child process that has not ended yet has it still."""
        os.close(self.lock)

    def prepare(self, made_of: Mapping[str, Any], *, anew: bool = False) -> None:
        """Keep what was built of the same before, and nothing else; with ``anew`` nothing at all."""
        self.folder.mkdir(exist_ok=True)  # not before the lock was taken: a build that ends deletes it
        if anew or _read_json(self._made_of) != made_of:
            self.discard()
        for folder in (self.artifact, self.pictures, self._complete):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._made_of, json.dumps(made_of))

    def discard(self) -> None:
        """Delete everything but the lock."""
        self._made_of.unlink(missing_ok=True)  # first: what is left after a crash in here belongs to nothing
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    @property
    def bytes(self) -> int:
        """Size of all that is in it: it is used again, or replaced."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def part(self, name: str) -> Path:
        """A new empty folder for something to be made in."""
        folder = self.folder / f"{name}.part"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return folder

    def log(self, name: str) -> Path:
        """Where the process that makes something writes what it has to say."""
        return self.folder / f"{name}.log"

    def graph(self, name: str) -> tuple[ArtifactFile, ...] | None:
        """The files of a graph that an earlier build finished; None if it did not, or if they are no longer whole."""
        try:
            files = _FILES.validate_json((self._complete / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return files if files and describe(self.artifact / name) == files else None

    def complete(self, name: str) -> tuple[ArtifactFile, ...]:
        """Take what was made in ``part(name)`` as a finished graph. Raises ``BuildError`` if there is nothing in it."""
        made, final = self.folder / f"{name}.part", self.artifact / name
        files = describe(made)
        if not files:
            raise BuildError(f"{name}: the compiler wrote no file")
        if final.exists():
            shutil.rmtree(final)
        made.rename(final)
        write_whole(self._complete / f"{name}.json", _FILES.dump_json(files).decode())
        return files


def write_whole(path: Path, text: str) -> None:
    """Write a small file that is whole or not there, whatever happens."""
    nascent = path.with_suffix(".new")
    with nascent.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    nascent.replace(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
