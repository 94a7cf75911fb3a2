"""What is kept of loading a graph, so that the next process loads it sooner."""

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
    """A file in which a compiler may keep what it has made of a graph's files for this machine.

    ``content`` stands for what is in those files: nothing that was kept of others is used. Several processes may read
    and write it at once.
    """

    file: Path
    content: str

    def read(self, made_with: str) -> bytes | None:
        """What was kept, if it was made of this content and with the same (a library, a processor), and is whole."""
        try:
            kept = self.file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.info("%s cannot be read: %s", self.file, error.strerror)
            return None
        digest, data = kept[:_DIGEST_SIZE], kept[_DIGEST_SIZE:]
        return data if digest == self._digest(made_with, data) else None

    def write(self, made_with: str, data: bytes) -> None:
        """Keep it in place of what was there. If it cannot be written, the next process does without."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Its digest tells a file that a power failure has damaged.
            atomic_write(self.file, self._digest(made_with, data) + data, sync=False)
        except OSError as error:
            logger.info("nothing is kept in %s for a faster start: %s", self.file, error.strerror)

    def _digest(self, made_with: str, data: bytes) -> bytes:
        # Of all that must fit, and of the data: what is damaged is as good as what does not fit.
        digest = xxhash.xxh3_128(f"{self.content}\n{made_with}\n".encode())
        digest.update(data)
        return digest.digest()


def caches_of(
    cache_dir: Path, artifact: Path, graphs: Mapping[str, Sequence[ArtifactFile]]
) -> Mapping[str, GraphCache]:
    """Places for the graphs of the artifact that lies, or will lie, in the folder ``artifact``.

    ``graphs`` are the files of each, by its name. What is kept of an artifact gives way to what is kept of its
    successor.
    """
    place = hashlib.sha256(str(artifact.absolute()).encode()).hexdigest()[:16]
    folder = cache_dir.expanduser().absolute() / "graphs" / f"{artifact.name}-{place}"
    return {graph: GraphCache(folder / graph, " ".join(file.xxh3 for file in files)) for graph, files in graphs.items()}
