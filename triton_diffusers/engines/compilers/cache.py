"""On-disk cache of compiled graphs, for faster loading."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from triton_diffusers.artifacts import ArtifactFile
from triton_diffusers.util.files import atomic_write

logger = logging.getLogger(__name__)

_DIGEST_SIZE = 16


@dataclass(frozen=True)
class GraphCache:
    """Cache file for a compiler's result on this machine.

    ``content`` identifies the graph's files, so that results of other files are ignored. Several processes may read and
    write it at once.
    """

    file: Path
    content: str

    def read(self, made_with: str) -> bytes | None:
        """Return the cached data if it is intact and was written for this content and ``made_with``; else None."""
        try:
            stored = self.file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.info("%s cannot be read: %s", self.file, error.strerror)
            return None
        digest, data = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
        return data if digest == self._digest(made_with, data) else None

    def write(self, made_with: str, data: bytes) -> None:
        """Replace the cached data. A failure is only logged, since the next process can do without."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.file, self._digest(made_with, data) + data)
        except OSError as error:
            logger.info("the graph cache %s cannot be written: %s", self.file, error.strerror)

    def _digest(self, made_with: str, data: bytes) -> bytes:
        # Covers both the key and the data, so that damaged and outdated entries are treated alike.
        digest = xxhash.xxh3_128(f"{self.content}\n{made_with}\n".encode())
        digest.update(data)
        return digest.digest()


def caches_of(
    cache_dir: Path, artifact: Path, graphs: Mapping[str, Sequence[ArtifactFile]]
) -> Mapping[str, GraphCache]:
    """Return the caches for the graphs of the artifact in the folder ``artifact``, which need not exist yet.

    ``graphs`` holds the files of each graph by name. A new artifact in the same folder replaces the caches of the old
    one.
    """
    place = hashlib.sha256(str(artifact.absolute()).encode()).hexdigest()[:16]
    folder = cache_dir.expanduser().absolute() / "graphs" / f"{artifact.name}-{place}"
    return {graph: GraphCache(folder / graph, " ".join(file.xxh3 for file in files)) for graph, files in graphs.items()}
