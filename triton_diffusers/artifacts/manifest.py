"""The manifest of an artifact: its files, origin and measured figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


class ArtifactError(RuntimeError):
    """An artifact cannot be read or placed; the message is one line with its name and the reason."""


FORMAT = 5  # raise it when the meaning of a manifest, or of a graph's inputs and outputs, changes
MANIFEST = "manifest.json"
_MAX_BYTES = 4 * 2**20  # of a manifest; ours have a few thousand
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("expected lowercase letters, digits and underscores")
    return name


def _plain_path(path: str) -> str:
    """Check a path of a manifest, which may come from anywhere: it must stay in its folder."""
    if not all(_PART.fullmatch(part) for part in path.split("/")):
        raise ValueError("expected plain names joined by /")
    return path


Name = Annotated[str, AfterValidator(_plain_name)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ArtifactFile(_Record):
    """A file of a graph; ``path`` is relative to the graph's folder."""

    path: Annotated[str, AfterValidator(_plain_path)]
    size: int = Field(ge=0)
    xxh3: str = Field(pattern=r"^[0-9a-f]{32}$")


class Figures(_Record):
    """The figures measured when the artifact was verified, beside the eager engine in float32 on the same machine.

    ``psnr`` is that of whole images in dB, by probe; 100 stands for anything better. Seconds are those of a step of one
    image with guidance, ``side`` pixels wide and high: medians over ``rounds``, in each of which both engines took
    turns (eager, compiled); older artifacts have none. Peaks are the bytes of a process that loads the engine and
    generates images.
    """

    psnr: dict[str, float]
    side: int = Field(ge=1)
    seconds_per_step: float = Field(ge=0)
    eager_seconds_per_step: float = Field(ge=0)
    rounds: tuple[tuple[float, float], ...] = ()
    peak_bytes: int = Field(ge=0)
    eager_peak_bytes: int = Field(ge=0)

    @property
    def lowest_psnr(self) -> float:
        """Return the PSNR of the worst image; 100 if there is none."""
        return min(self.psnr.values(), default=100.0)

    @property
    def speed_up(self) -> float:
        """Return the ratio of the engines' speeds (eager time / compiled time); 0 if it was not measured.

        It is the median of the rounds' ratios, so a disturbance of one round or turn does not count.
        """
        if ratios := [eager / compiled for eager, compiled in self.rounds if compiled]:
            return median(ratios)
        return self.eager_seconds_per_step / self.seconds_per_step if self.seconds_per_step else 0.0


class Manifest(_Record):
    """The description of an artifact: its files, its origin and its requirements.

    ``fingerprint`` is that of the model, ``versions`` are those of the libraries that the artifact depends on,
    ``machine`` is the hardware that it is tied to, ``created`` is a time in UTC.
    """

    format: int = FORMAT
    fingerprint: str
    engine: Name
    precision: Name
    graphs: dict[Name, tuple[ArtifactFile, ...]] = Field(min_length=1)
    versions: dict[str, str]
    machine: str
    created: str
    figures: Figures

    @property
    def name(self) -> str:
        """Return ``<engine>-<precision>``, the name of the artifact's folder."""
        return f"{self.engine}-{self.precision}"

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.size for files in self.graphs.values() for file in files)

    def paths(self) -> Mapping[str, ArtifactFile]:
        """Return every file by its path from the artifact's folder."""
        return {f"{graph}/{file.path}": file for graph, files in self.graphs.items() for file in files}

    def to_json(self) -> str:
        """Return the content of ``manifest.json``."""
        return self.model_dump_json(indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the artifact in ``folder``. Raises ``ArtifactError``."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ArtifactError(f"{path} is not a manifest: it is longer than {_MAX_BYTES} bytes")
        content = json.loads(text)
        found = content["format"]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not a manifest") from error
    if found != FORMAT:
        raise ArtifactError(f"{folder} has the format {str(found)[:20]}; this version reads format {FORMAT}")
    try:
        # As JSON: only there does strict mode accept a list for a tuple.
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:120]
        raise ArtifactError(f"{path} is damaged: {where}: {first['msg']}") from error
