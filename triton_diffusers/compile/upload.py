"""Upload an artifact to a bucket, from which ``--model-dir`` downloads it with its model."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from triton_diffusers.artifacts import OPTIMIZED_MODEL, Artifact
from triton_diffusers.artifacts.manifest import MANIFEST
from triton_diffusers.compile.errors import BuildError, CannotBegin
from triton_diffusers.compile.tasks import Advance
from triton_diffusers.downloads import SourceError
from triton_diffusers.downloads.buckets import open_folder
from triton_diffusers.downloads.remote import Interrupted
from triton_diffusers.settings import Settings
from triton_diffusers.util.backoff import backoff

log = logging.getLogger(__name__)

_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5  # doubled after each attempt


class Upload:
    """The destination ``<target>/optimized_model`` in a bucket; ``target`` is as ``oss://bucket/prefix``."""

    def __init__(self, target: str, settings: Settings) -> None:
        """Raise ``CannotBegin`` if the target, the credentials or the settings are invalid; sends nothing."""
        scheme, _, place = target.partition("://")
        bucket, _, prefix = place.partition("/")
        parts = [part for part in prefix.split("/") if part]
        if not bucket or {".", ".."} & {*parts}:
            raise CannotBegin(f"--out: {target} is invalid: expected {scheme}://bucket/prefix")
        self.target = "/".join([f"{scheme}://{bucket}", *parts, OPTIMIZED_MODEL])
        try:
            self._folder = open_folder(scheme, bucket, "/".join([*parts, OPTIMIZED_MODEL]), settings)
        except SourceError as error:
            raise CannotBegin(f"--out: {error}") from error

    def put(self, artifact: Artifact, advance: Advance) -> None:
        """Upload all files, replacing an older artifact of this name. Raises ``BuildError``.

        The old manifest is deleted first and the new one comes last: readers never see a mixture of both.
        """
        name = artifact.manifest.name
        files = {f"{name}/{path}": file.size for path, file in artifact.manifest.paths().items()}
        done, total = 0, sum(files.values())
        try:
            existing = {file.path for file in self._folder.files() if file.path.startswith(f"{name}/")}
            self._folder.delete(f"{name}/{MANIFEST}")
            for path, size in files.items():
                self._put(artifact.folder.parent / path, path)
                done += size
                advance(done, total)
            for stale in sorted(existing - {*files, f"{name}/{MANIFEST}"}):
                self._folder.delete(stale)
            self._put(artifact.folder / MANIFEST, f"{name}/{MANIFEST}")
        except SourceError as error:
            raise BuildError(f"{name} was not uploaded: {error}; it is built in {artifact.folder}") from error

    def _put(self, path: Path, name: str) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                self._folder.put(path, name)
                return
            except Interrupted as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                log.warning("%s; trying again", error)
                time.sleep(backoff(attempt, first=_FIRST_PAUSE_SECONDS))
