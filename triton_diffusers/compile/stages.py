"""The tasks of a build's worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.compile.drawing import draw
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.probes import calibration, probes
from triton_diffusers.compile.tasks import (
    Advance,
    CalibrateTask,
    CompileTask,
    DrawResult,
    DrawTask,
    Task,
    TimeResult,
    TimeTask,
)
from triton_diffusers.compile.timing import time_in_turns
from triton_diffusers.engines import Engine
from triton_diffusers.engines.compiled import CompiledEngine, load_compiled
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs import GRAPHS, Graph, Inputs
from triton_diffusers.settings import Settings

# The only message of C++ when a file cannot be written: neither file nor reason.
_NOT_WRITTEN = "iostream error"


def do(task: Task, advance: Advance) -> DrawResult | TimeResult | None:
    """Run a task; any exception is the reason of its failure."""
    if isinstance(task, CompileTask):
        _compile(task)
        return None
    if isinstance(task, CalibrateTask):
        _calibrate(task, advance)
        return None
    return _time(task, advance) if isinstance(task, TimeTask) else _draw(task, advance)


def _settings(task: Task) -> Settings:
    # Compiled from, and compared in, full precision; the checker would blacken images that it takes for unsafe.
    # Free sizes are verified; a server may fix them.
    return Settings(
        model_dir=task.model_dir, cache_dir=task.cache_dir, dtype="float32", close_safety=True, fixed_sizes=()
    )


def _compile(task: CompileTask) -> None:
    graph = GRAPHS[task.graph](load_components(_settings(task)))
    recorded = _read(task.calibration / f"{task.graph}.safetensors") if task.calibration else []
    try:
        COMPILERS[task.engine]().compile(graph, task.folder, task.precision, recorded)
    except RuntimeError as error:
        if _NOT_WRITTEN in str(error):
            raise BuildError(
                f"{task.folder} cannot be written: the disk is full, or the file exceeds a size limit"
            ) from error
        raise


def _draw(task: DrawTask, advance: Advance) -> DrawResult:
    settings = _settings(task)

    def make_engine() -> Engine:
        if not task.graphs:
            return EagerEngine(load_components(settings))
        return load_compiled(settings, LoadingGraphs(task.engine, task.precision, task.graphs, task.caches))

    return draw(make_engine, lambda side: probes(side, task.steps), task.folder, task.side, advance)


def _time(task: TimeTask, advance: Advance) -> TimeResult:
    settings = _settings(task)

    def make_compiled() -> Engine:
        return load_compiled(settings, LoadingGraphs(task.engine, task.precision, task.graphs, task.caches))

    return time_in_turns(lambda: EagerEngine(load_components(settings)), make_compiled, task.folder, task.side, advance)


def _calibrate(task: CalibrateTask, advance: Advance) -> None:
    settings = _settings(task)
    recorders: dict[str, _Recorder] = {}

    def make_engine() -> Engine:
        components = load_components(settings)
        recorders.update({name: _Recorder(GRAPHS[name](components)) for name in task.graphs})
        eager = EagerEngine(components)
        return CompiledEngine(components, recorders, lambda: eager, eager.make_controlnet)

    draw(make_engine, lambda side: calibration(side, task.steps), task.folder, task.side, advance)
    for name, recorder in recorders.items():
        _write(task.folder / f"{name}.safetensors", recorder.calls)


class _Recorder:
    """A graph that runs in PyTorch and records its inputs."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.calls: list[Inputs] = []

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> Inputs:
        self.calls.append(tuple(tensor.clone() for tensor in inputs))
        outputs = self._graph.module(*inputs)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)

    def release(self) -> None:
        pass


def _write(path: Path, calls: Sequence[Inputs]) -> None:
    named = {f"{call}.{index}": tensor for call, inputs in enumerate(calls) for index, tensor in enumerate(inputs)}
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, path)


def _read(path: Path) -> list[Inputs]:
    tensors = load_file(path)
    calls: dict[int, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        call, index = map(int, name.split("."))
        calls.setdefault(call, {})[index] = tensor
    return [tuple(tensor for _, tensor in sorted(calls[call].items())) for call in sorted(calls)]
