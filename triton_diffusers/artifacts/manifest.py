"""What is said of an artifact that cannot be read or placed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


class ArtifactError(RuntimeError):
    """An artifact cannot be read or placed; the message is one line that names it and says why."""


FORMAT = 5  # raise it when a manifest, or what a graph takes and gives, changes its meaning
MANIFEST = "manifest.json"
_MOST_BYTES = 4 * 2**20  # of a manifest; one of ours has a few thousand
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a name has small letters, digits and underscores")
    return name


def _plain_path(path: str) -> str:
    """A manifest may come from anywhere: its paths must stay in their folder."""
    if not all(_PART.fullmatch(part) for part in path.split("/")):
        raise ValueError("a path has plain names, joined by /")
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
    """What was measured when the artifact was verified, beside the eager engine in float32 on the same machine.

    ``psnr`` is that of whole pictures in dB, by what was drawn; 100 stands for all that is better. Seconds are those of
    a step of one image with guidance, ``side`` pixels wide and high: medians over ``rounds``, in each of which both
    engines were timed in turns (eager, compiled); older artifacts have none. Peaks are of a process that loads the
    engine and draws, in bytes.
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
        """Of the picture that came out least like the eager one; 100 if none was drawn."""
        return min(self.psnr.values(), default=100.0)

    @property
    def speed_up(self) -> float:
        """How many times as fast as the eager engine a step is; 0 if it was not measured.

        The median of the rounds' ratios: what slowed one round, or one turn, does not count.
        """
        if ratios := [eager / compiled for eager, compiled in self.rounds if compiled]:
            return median(ratios)
        return self.eager_seconds_per_step / self.seconds_per_step if self.seconds_per_step else 0.0


class Manifest(_Record):
    """What an artifact is, was made of, and can be used with.

    ``fingerprint`` is that of the model, ``versions`` are those of the libraries that the artifact depends on,
    ``machine`` is what it is tied to, ``created`` is a time of day in UTC.
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
        """``<engine>-<precision>``: the name of its folder."""
        return f"{self.engine}-{self.precision}"

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.size for files in self.graphs.values() for file in files)

    def paths(self) -> Mapping[str, ArtifactFile]:
        """Every file by its path from the artifact's folder."""
        return {f"{graph}/{file.path}": file for graph, files in self.graphs.items() for file in files}

    def to_json(self) -> str:
        """The content of ``manifest.json``."""
        return self.model_dump_json(indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in ``folder``. Raises ``ArtifactError``."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ArtifactError(f"{path} is no manifest: it is longer than {_MOST_BYTES} bytes")
        content = json.loads(text)
        found = content["format"]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is no manifest") from error
    if found != FORMAT:
        raise ArtifactError(f"{folder} has the format {str(found)[:20]}; this version reads format {FORMAT}")
    try:
        # As JSON: strict mode takes a list for a tuple there.
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:120]
        raise ArtifactError(f"{path} is damaged: {where}: {first['msg']}") from error
