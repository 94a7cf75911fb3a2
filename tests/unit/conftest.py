"""Fixtures of the unit tests: isolated settings, the emoji model, and loops on a fake engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.fake_engine import FakeEngine
from tests.waiting import WITHIN
from triton_diffusers.api.contract import INPUT_BY_NAME, Input
from triton_diffusers.api.request import GenerationRequest, GenerationResult, ModelDefaults
from triton_diffusers.checkpoints.load import Components, load_components
from triton_diffusers.families.conditioning import Conditioning, EncodedText
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
NATIVE_SIDE = 128  # of the emoji model
DEFAULTS = ModelDefaults(side=NATIVE_SIDE)
NUMPY_TYPES: Mapping[str, Any] = {
    "STRING": np.object_,
    "BYTES": np.object_,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}


def array_of(field: Input, value: Any) -> np.ndarray[Any, Any]:
    """Return a field's value as Triton hands it to a model: shape (1, n), text as bytes."""
    elements = list(value) if isinstance(value, list | tuple) else [value]
    if field.datatype in ("STRING", "BYTES"):
        elements = [element.encode() if isinstance(element, str) else element for element in elements]
    array = np.empty((1, len(elements)), NUMPY_TYPES[field.datatype])
    array[0, :] = elements
    return array


def tensors(**values: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return a valid request's tensors, with these fields added or replaced."""
    fields = {"task_id": "a-task", "prompt": "a red apple", **values}
    return {name: array_of(INPUT_BY_NAME[name], value) for name, value in fields.items()}


def request_for(prompt: str = "a red apple", **changes: Any) -> GenerationRequest:
    """Return a small request."""
    fields = {"task_id": "a-task", "steps": 4, "width": 64, "height": 64, "seed": 1, "guidance_scale": 3.0}
    fields["embed_metadata"] = False  # so that equal images are equal files
    return GenerationRequest(**{**fields, "prompt": prompt, **changes})


def result_with(**changes: Any) -> GenerationResult:
    """Return a result without images."""
    fields: dict[str, Any] = dict.fromkeys(("images", "is_nsfw", "image_urls", "oss_urls", "warnings"), ())
    return GenerationResult(**{**fields, "optimized": False, "queue_seconds": 0.0, "run_seconds": 0.0, **changes})


def conditioning(rows: int = 2, chunks: int = 1, steps: int = 4) -> Conditioning:
    """Return the same empty texts in every step."""
    text = EncodedText((torch.zeros(1, 77, 8),) * chunks)
    return Conditioning(((text,) * rows,) * steps, weights=(1.0,) * max(1, rows - 1))


def finish(loop: EngineLoop, *jobs: Job) -> None:
    """Wait until all the jobs have ended."""
    for job in jobs:
        loop.wait([job], WITHIN)
        assert job.state.ended, f"{job.request.task_id} did not end"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _threads_of_pytorch() -> Iterator[None]:
    """Restore PyTorch's number of threads, which is OpenMP's and which CTranslate2 and training scripts change."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def components(tmp_path_factory: pytest.TempPathFactory) -> Components:
    """Return the emoji model in float32."""
    return load_components(
        Settings(model_dir=ROOT / "models" / "emoji", dtype="float32", runtime_dir=tmp_path_factory.mktemp("runtime"))
    )


@pytest.fixture
def start_loop(tmp_path: Path) -> Iterator[Callable[..., EngineLoop]]:
    """Return a function that starts a loop on an engine; keywords are settings, but for those of ``EngineLoop``."""
    started: list[tuple[FakeEngine, EngineLoop]] = []

    def start(engine: Any, *, board: Any = None, telemetry: Any = None, **settings: Any) -> EngineLoop:
        chosen = Settings(**{"runtime_dir": tmp_path, "store": "", "enlarge": "off", **settings})
        loop = EngineLoop(lambda: engine, chosen, name="sd_base", board=board, telemetry=telemetry)
        loop.start()
        started.append((engine, loop))
        return loop

    yield start
    for engine, loop in started:
        engine.turnstile.open()
        loop.stop()


@pytest.fixture
def engine() -> FakeEngine:
    """Return the engine of a loop of the test's own."""
    return FakeEngine()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[JobBoard]:
    """Return a board of the test's own."""
    opened = JobBoard(tmp_path / "board")
    yield opened
    opened.close()
