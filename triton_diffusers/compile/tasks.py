"""What a build has done by child processes, and how they are told.

Each part of a build that needs a model's weights in memory is a process of its own: the memory is free again when it is
over, what it peaked at can be measured, and a library that crashes takes nothing with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triton_diffusers.compile.errors import BuildError
from triton_diffusers.engines.compilers import GraphCache
from triton_diffusers.settings import PREFIX
from triton_diffusers.util.process import attached


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


_SHOWN = 300  # characters

# Says how far a task is: steps done, and how many there are.
Advance = Callable[[int, int], None]


def run_task(task: _Task, log: Path, lock: int, advance: Advance) -> Drawn | Timed | None:
    """Run a task to its end, in a process that writes to ``log`` and holds ``lock`` (a descriptor) while it lives.

    Raises ``BuildError`` with the reason if it fails or is killed.
    """
    # What an operator has set for a server, such as its limits, is not for here; the task says everything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603  # our own program
            # Killed when the build is: a compiler that nobody waits for would keep a core and gigabytes for minutes.
            attached([sys.executable, "-m", "triton_diffusers.compile.worker"], death_signal=signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            pass_fds=(lock,),
        )
        last = Message()
        try:
            if process.stdin is None or process.stdout is None:
                raise AssertionError("both are pipes")
            with process.stdin as stdin, process.stdout as stdout:
                try:
                    stdin.write(task.model_dump_json().encode())
                    stdin.close()
                except BrokenPipeError:
                    pass  # it has died already; why is seen below
                for line in stdout:
                    message = _read(line)
                    if message is not None and message.total:
                        advance(message.done, message.total)
                    elif message is not None:
                        last = message
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    if last.error is not None:
        raise BuildError(f"{last.error} (all that was said: {log})")
    if code:
        raise BuildError(f"{_ended(code)}{_last_line(log)} (all that was said: {log})")
    return last.result


def _read(line: bytes) -> Message | None:
    try:
        return Message.model_validate_json(line)
    except ValidationError:
        return None


def _ended(code: int) -> str:
    if code > 0:
        return f"the process ended with code {code}"
    hint = "; the machine may have run out of memory" if -code == signal.SIGKILL else ""
    return f"the process was ended by signal {-code}{hint}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:_SHOWN]}" if lines else ""
