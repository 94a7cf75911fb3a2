"""Whether an artifact can be used here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.artifacts.damage import damage
from triton_diffusers.artifacts.manifest import MANIFEST, ArtifactError, Manifest, read_manifest


@dataclass(frozen=True, kw_only=True)
class Here:
    """What an artifact has to fit: the model, and what the artifact's compiler says of this machine."""

    fingerprint: str
    machine: str
    versions: Mapping[str, str]


def misfit(artifact: Artifact, here: Here) -> str | None:
    """Why an artifact cannot be used here, in one sentence; None if it can. Reads no file, looks at their sizes."""
    manifest = artifact.manifest
    if manifest.fingerprint != here.fingerprint:
        return (
            f"{manifest.name} was built from another model "
            f"(fingerprint {manifest.fingerprint[:12]}, this model's is {here.fingerprint[:12]})"
        )
    if manifest.machine != here.machine:
        return f"{manifest.name} was built for another machine ({manifest.machine}; this is {here.machine})"
    for library in sorted({*manifest.versions, *here.versions}):
        then, now = manifest.versions.get(library, "none"), here.versions.get(library, "none")
        if then != now:
            return f"{manifest.name} was built with another version of {library} ({then}; this is {now})"
    if fault := damage(artifact.folder, manifest):
        return f"{manifest.name} is damaged: {fault}"
    return None


OPTIMIZED_MODEL = "optimized_model"
_LOCK = ".lock"
_REPLACED = ".replaced-"  # what an artifact's folder is called from when its successor comes until it is deleted
_REMOVED = ".removed-"


@dataclass(frozen=True)
class Artifact:
    """An artifact that was read; ``folder / <graph>`` holds each graph's files."""

    folder: Path
    manifest: Manifest


def store_folder(model_dir: Path) -> Path:
    """Return the folder of a model's artifacts: in its directory, or beside a checkpoint in one file."""
    return model_dir.with_suffix(f".{OPTIMIZED_MODEL}") if model_dir.is_file() else model_dir / OPTIMIZED_MODEL


class ArtifactStore:
    """The artifacts below ``root``, which need not exist. Its methods may be called by several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> dict[str, Artifact | ArtifactError]:
        """What is there by its folder's name; for each that cannot be read, the error that says why.

        Raises ``ArtifactError`` if ``root`` is there and cannot be read.
        """
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise ArtifactError(f"{self.root} cannot be read: {error.strerror}") from error
        return {name: self._read_or_error(name) for name in names}

    def find(self, engine: str, precision: str) -> Artifact | None:
        """The artifact of an engine and precision; None if there is none. Raises ``ArtifactError`` if it is damaged."""
        folder = self.root / f"{engine}-{precision}"
        try:
            there = folder.is_dir()
        except OSError as error:
            raise ArtifactError(f"{folder} cannot be read: {error.strerror}") from error
        return self._read(folder.name) if there else None

    def place(self, folder: Path, manifest: Manifest) -> Artifact:
        """Make ``folder``, on the same file system, the artifact that ``manifest`` tells of, in place of an older one.

        Everything is on the disk when it gets its name. Raises ``ArtifactError`` if a file is not what the manifest
        says, and ``OSError``; then nothing has changed.
        """
        if fault := damage(folder, manifest, full=True):
            raise ArtifactError(f"{manifest.name} is not placed: {fault}")
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _sync_tree(folder)
        final, replaced = self.root / manifest.name, self.root / f"{_REPLACED}{manifest.name}"
        with self._locked():
            if final.exists():
                final.rename(replaced)
            try:
                folder.rename(final)
            except OSError:
                if replaced.exists():
                    replaced.rename(final)
                raise
            _sync(self.root)
            shutil.rmtree(replaced, ignore_errors=True)
        return Artifact(final, manifest)

    def remove(self, name: str) -> None:
        """Remove what lies there by the name of an artifact, damaged or not. Raises ``ArtifactError``, ``OSError``."""
        if name.startswith(".") or "/" in name or not (self.root / name).is_dir():
            raise ArtifactError(f"{self.root} has no artifact {name}")
        with self._locked():
            removed = self.root / f"{_REMOVED}{name}"
            (self.root / name).rename(removed)  # gone at once: nobody reads half an artifact
            shutil.rmtree(removed)

    def _read_or_error(self, name: str) -> Artifact | ArtifactError:
        try:
            return self._read(name)
        except ArtifactError as error:
            return error

    def _read(self, name: str) -> Artifact:
        folder = self.root / name
        manifest = read_manifest(folder)
        if manifest.name != name:
            raise ArtifactError(f"{folder} is not what it says it is: {manifest.name}")
        return Artifact(folder, manifest)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._mend()
            yield
        finally:
            os.close(descriptor)

    def _mend(self) -> None:
        """Finish what a process that died under the lock had begun."""
        for removed in self.root.glob(f"{_REMOVED}*"):
            shutil.rmtree(removed, ignore_errors=True)
        for replaced in self.root.glob(f"{_REPLACED}*"):
            final = self.root / replaced.name.removeprefix(_REPLACED)
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(final)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
