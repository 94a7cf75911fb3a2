"""A build without compilers: tasks run in this process and take no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from triton_diffusers.artifacts import ArtifactStore, BuildEnvironment
from triton_diffusers.compile.plan import Plan
from triton_diffusers.compile.progress import LogProgress
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
from triton_diffusers.engines.compilers import GraphCache

GRAPHS = ("text_encoder", "unet")
ENVIRONMENT = BuildEnvironment(fingerprint="f" * 64, machine="x86-64", versions={"compiler": "1.0"})
PEAK = {True: 500, False: 1000}
# The third round had a disturbed turn.
ROUNDS = ((2.0, 0.5), (2.2, 0.55), (2.0, 9.0), (2.1, 0.5), (2.0, 0.5))


def plan_for(root: Path, **changes: Any) -> Plan:
    """Return a plan for an empty model, which is created if it does not exist."""
    if not (root / "model").exists():
        (root / "model").mkdir()
        (root / "model" / "base_model.safetensors").touch()
    fields: Mapping[str, Any] = {
        "model_dir": root / "model",
        "cache_dir": root / "cache",
        "vae": "",
        "environment": ENVIRONMENT,
        "engine": "openvino",
        "precision": "bfloat16",
        "store": ArtifactStore(root / "optimized_model"),
        "existing": None,
        "misfit": "",
        "min_psnr": 30.0,
        "calibrated": (),
        "graphs": GRAPHS,
    }
    return Plan(**{**fields, **changes})


@dataclass
class Doer:
    """Runs tasks and records them in ``done``.

    ``before`` is called with each task and may raise; ``tone`` is the grey value of compiled images; ``calibrated``
    are the graphs compiled with calibration inputs, ``caches`` those of the last images.
    """

    tone: int = 101
    before: Callable[[Task], None] = lambda task: None
    done: list[str] = field(default_factory=list)
    calibrated: list[str] = field(default_factory=list)
    caches: Mapping[str, GraphCache] = field(default_factory=dict)

    def __call__(self, task: Task, log: Path, lock: int, advance: Advance) -> DrawResult | TimeResult | None:
        assert log.parent.is_dir()
        assert lock > 0
        self.before(task)
        advance(1, 1)
        if isinstance(task, DrawTask):
            return self._draw(task)
        if isinstance(task, TimeTask):
            self.done.append("time")
            assert task.graphs.keys() == {*GRAPHS}
            return TimeResult(rounds=ROUNDS)
        if isinstance(task, CalibrateTask):
            self.done.append("calibrate")
            for graph in task.graphs:
                (task.folder / f"{graph}.safetensors").write_bytes(b"numbers")
            return None
        assert list(task.folder.iterdir()) == []
        (task.folder / "model.bin").write_bytes(f"{task.graph} {task.precision}".encode())
        if task.calibration is not None:
            assert (task.calibration / f"{task.graph}.safetensors").exists()
            self.calibrated.append(task.graph)
        self.done.append(task.graph)
        return None

    def _draw(self, task: DrawTask) -> DrawResult:
        compiled, self.caches = bool(task.graphs), task.caches
        self.done.append("compiled" if compiled else "eager")
        for folder in task.graphs.values():
            assert (folder / "model.bin").exists()
        for name in ("plain", "lora"):
            tone = self.tone if compiled and name == "lora" else 100
            Image.new("RGB", (8, 8), (tone, tone, tone)).save(task.folder / f"{name}-0.png")
        return DrawResult(
            files={"plain": ["plain-0.png"], "lora": ["lora-0.png"]},
            side=64,
            peak_bytes=PEAK[compiled],
        )


def failing_at(kind: type[Task], error: BaseException) -> Callable[[Task], None]:
    """Return a ``before`` that raises at the first task of a kind."""

    def check(task: Task) -> None:
        if isinstance(task, kind) and not (isinstance(task, CompileTask) and task.graph != "unet"):
            raise error

    return check


class Quiet(LogProgress):
    """Progress that is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)
