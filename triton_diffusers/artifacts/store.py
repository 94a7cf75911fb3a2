"""The folder of a model's artifacts, and the check if one of them can be used here."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.artifacts.damage import damage
from triton_diffusers.artifacts.manifest import MANIFEST, ArtifactError, Manifest, read_manifest
from triton_diffusers.util.files import fsync, fsync_tree, locked


@dataclass(frozen=True, kw_only=True)
class BuildEnvironment:
    """The conditions that an artifact must match: the model, and the machine as its compiler describes it."""

    fingerprint: str
    machine: str
    versions: Mapping[str, str]


def misfit(artifact: Artifact, environment: BuildEnvironment) -> str | None:
    """Return why an artifact cannot be used here, in one sentence; None if it can. Checks file sizes only."""
    manifest = artifact.manifest
    if manifest.fingerprint != environment.fingerprint:
        return (
            f"{manifest.name} was built from another model "
            f"(fingerprint {manifest.fingerprint[:12]}, this model's is {environment.fingerprint[:12]})"
        )
    if manifest.machine != environment.machine:
        return f"{manifest.name} was built for another machine ({manifest.machine}; this is {environment.machine})"
    for library in sorted({*manifest.versions, *environment.versions}):
        then, now = manifest.versions.get(library, "none"), environment.versions.get(library, "none")
        if then != now:
            return f"{manifest.name} was built with another version of {library} ({then}; this is {now})"
    if fault := damage(artifact.folder, manifest):
        return f"{manifest.name} is damaged: {fault}"
    return None


OPTIMIZED_MODEL = "optimized_model"
_LOCK = ".lock"
_REPLACED = ".replaced-"  # prefix of an old artifact's folder, from its replacement until its deletion
_REMOVED = ".removed-"


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk; ``folder / <graph>`` holds each graph's files."""

    folder: Path
    manifest: Manifest


def store_folder(model_dir: Path) -> Path:
    """Return the folder of a model's artifacts: in its directory, or beside a checkpoint in one file."""
    return model_dir.with_suffix(f".{OPTIMIZED_MODEL}") if model_dir.is_file() else model_dir / OPTIMIZED_MODEL


class ArtifactStore:
    """The artifacts below ``root``, which need not exist. Safe for concurrent use by several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> dict[str, Artifact | ArtifactError]:
        """Return the artifacts by folder name, with the error in place of each that cannot be read.

        Raises: ArtifactError: ``root`` exists and cannot be read.
        """
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise ArtifactError(f"{self.root} cannot be read: {error.strerror}") from error
        return {name: self._read_or_error(name) for name in names}

    def find(self, engine: str, precision: str) -> Artifact | None:
        """Return the artifact of an engine and precision; None if there is none. Raises ``ArtifactError``."""
        folder = self.root / f"{engine}-{precision}"
        try:
            exists = folder.is_dir()
        except OSError as error:
            raise ArtifactError(f"{folder} cannot be read: {error.strerror}") from error
        return self._read(folder.name) if exists else None

    def place(self, folder: Path, manifest: Manifest) -> Artifact:
        """Move ``folder``, on the same file system, to the place of the artifact ``manifest``, replacing an older one.

        All data is on disk before the folder gets its name. After an error nothing has changed.

        Raises: ArtifactError: a file does not match the manifest. OSError: a file cannot be written.
        """
        if fault := damage(folder, manifest, full=True):
            raise ArtifactError(f"{manifest.name} was not placed: {fault}")
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        fsync_tree(folder)
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
            fsync(self.root)
            shutil.rmtree(replaced, ignore_errors=True)
        return Artifact(final, manifest)

    def remove(self, name: str) -> None:
        """Remove the artifact ``name``, damaged or not. Raises ``ArtifactError`` or ``OSError``."""
        if name.startswith(".") or "/" in name or not (self.root / name).is_dir():
            raise ArtifactError(f"{self.root} has no artifact {name}")
        with self._locked():
            removed = self.root / f"{_REMOVED}{name}"
            (self.root / name).rename(removed)  # atomic: nobody reads half an artifact
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
            raise ArtifactError(f"{folder} is invalid: its manifest is that of {manifest.name}")
        return Artifact(folder, manifest)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / _LOCK):
            self._recover()
            yield

    def _recover(self) -> None:
        """Finish the operation of a process that died while it held the lock."""
        for removed in self.root.glob(f"{_REMOVED}*"):
            shutil.rmtree(removed, ignore_errors=True)
        for replaced in self.root.glob(f"{_REPLACED}*"):
            final = self.root / replaced.name.removeprefix(_REPLACED)
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(final)
