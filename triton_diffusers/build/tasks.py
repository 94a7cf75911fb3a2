"""What a build has done by child processes, and how they are told.

Each part of a build that needs a model's weights in memory is a process of its own: the memory is free again when it is
over, what it peaked at can be measured, and a library that crashes takes nothing with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from triton_diffusers.engines.compilers import GraphCache


class _Task(BaseModel):
    """``model_dir`` is on this machine; ``cache_dir`` is for checkpoints that have to be converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_dir: Path
    cache_dir: Path


class CompileTask(_Task):
    """Compile one graph into an empty folder; ``calibration`` is what ``CalibrateTask`` wrote, if it is wanted."""

    kind: Literal["compile"] = "compile"
    engine: str
    precision: str
    graph: str
    folder: Path
    calibration: Path | None = None


class CalibrateTask(_Task):
    """Write what goes into each of ``graphs`` while pictures are drawn: ``<folder>/<graph>.safetensors``."""

    kind: Literal["calibrate"] = "calibrate"
    graphs: tuple[str, ...]
    steps: int
    side: int
    folder: Path


class DrawTask(_Task):
    """Draw the probes into ``folder`` as PNG.

    By the compiled graphs in ``graphs`` (name → folder), or by the eager engine in float32 if there are none. In
    ``caches`` is kept what makes a server load them sooner.
    """

    kind: Literal["draw"] = "draw"
    steps: int
    side: int
    folder: Path
    engine: str = ""
    precision: str = ""
    graphs: Mapping[str, Path] = Field(default_factory=dict)
    caches: Mapping[str, GraphCache] = Field(default_factory=dict)


class TimeTask(_Task):
    """Time steps of the compiled graphs beside those of the eager engine; ``side`` is that of the images, in pixels."""

    kind: Literal["time"] = "time"
    side: int
    folder: Path
    engine: str
    precision: str
    graphs: Mapping[str, Path]
    caches: Mapping[str, GraphCache] = Field(default_factory=dict)


Task = Annotated[CompileTask | CalibrateTask | DrawTask | TimeTask, Field(discriminator="kind")]


class Drawn(BaseModel):
    """What a ``DrawTask`` made and measured: the files of each probe, and its process's peak.

    ``side`` is that of the pictures, in pixels.
    """

    model_config = ConfigDict(frozen=True)

    files: Mapping[str, Sequence[str]]
    side: int
    peak_bytes: int


class Timed(BaseModel):
    """What a ``TimeTask`` measured: seconds of a step, of the eager and of the compiled engine, for each round."""

    model_config = ConfigDict(frozen=True)

    rounds: tuple[tuple[float, float], ...]


class Message(BaseModel):
    """A line of a child's standard output: how far it is, or how it ended."""

    done: int = 0
    total: int = 0
    result: Drawn | Timed | None = None
    error: str | None = None
