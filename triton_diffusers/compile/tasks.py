"""Tasks of a build, run in worker processes.

Each part of a build that needs a model's weights is a process of its own: its memory is freed at its end, its peak can
be measured, and a library that crashes does not end the build.
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
    """A task; ``cache_dir`` is for checkpoints that have to be converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_dir: Path
    cache_dir: Path


class CompileTask(_Task):
    """Compile one graph into an empty folder; ``calibration`` is the output of a ``CalibrateTask``, if needed."""

    kind: Literal["compile"] = "compile"
    engine: str
    precision: str
    graph: str
    folder: Path
    calibration: Path | None = None


class CalibrateTask(_Task):
    """Record the inputs of each of ``graphs`` while images are generated: ``<folder>/<graph>.safetensors``."""

    kind: Literal["calibrate"] = "calibrate"
    graphs: tuple[str, ...]
    steps: int
    side: int
    folder: Path


class DrawTask(_Task):
    """Generate the probes' images into ``folder`` as PNG.

    With the compiled graphs in ``graphs`` (name → folder), or with the eager engine in float32 if there are none.
    ``caches`` speed up their next load.
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
    """Time steps of the compiled graphs beside the eager engine's; ``side`` is that of the images, in pixels."""

    kind: Literal["time"] = "time"
    side: int
    folder: Path
    engine: str
    precision: str
    graphs: Mapping[str, Path]
    caches: Mapping[str, GraphCache] = Field(default_factory=dict)


Task = Annotated[CompileTask | CalibrateTask | DrawTask | TimeTask, Field(discriminator="kind")]


class DrawResult(BaseModel):
    """The result of a ``DrawTask``: the files of each probe, their side in pixels, and the process's peak memory."""

    model_config = ConfigDict(frozen=True)

    files: Mapping[str, Sequence[str]]
    side: int
    peak_bytes: int


class TimeResult(BaseModel):
    """The result of a ``TimeTask``: seconds per step of the eager and the compiled engine, for each round."""

    model_config = ConfigDict(frozen=True)

    rounds: tuple[tuple[float, float], ...]


class Message(BaseModel):
    """A line of a worker's standard output: its progress or its result."""

    done: int = 0
    total: int = 0
    result: DrawResult | TimeResult | None = None
    error: str | None = None


_MAX_SHOWN_CHARACTERS = 300

# Progress callback: steps done, and their total.
Advance = Callable[[int, int], None]


def run_task(task: _Task, log: Path, lock: int, advance: Advance) -> DrawResult | TimeResult | None:
    """Run a task to its end in a worker process that logs to ``log`` and holds the descriptor ``lock`` while it lives.

    Raises: BuildError: the task failed or was killed.
    """
    # Without the operator's settings for a server, such as limits: the task is complete.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own program
            # Killed with the build: an abandoned compiler would occupy a core and gigabytes for minutes.
            attached([sys.executable, "-m", "triton_diffusers.compile.worker"], death_signal=signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
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
                    pass  # it has died already; the reason is read below
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
        raise BuildError(f"{last.error} (full log: {log})")
    if code:
        raise BuildError(f"{_ended(code)}{_last_line(log)} (full log: {log})")
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
    return f": {lines[-1].strip()[:_MAX_SHOWN_CHARACTERS]}" if lines else ""
