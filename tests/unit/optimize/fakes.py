"""Compilers, graphs and model directories for tests of the engine's choice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.unit.artifacts.samples import FIGURES, made, manifest_of
from tests.unit.conftest import ROOT
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.artifacts import Artifact, ArtifactStore, fingerprint
from triton_diffusers.engines.compilers import GraphCache
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.settings import Settings


class FakeCompiler:
    """A compiler for this machine."""

    precisions = ("bfloat16", "float32", "int8")
    device = "cpu"
    artifacts_are_code = False

    def machine(self) -> str:
        return "x86-64 avx512"

    def versions(self) -> Mapping[str, str]:
        return {"openvino": "2026.4.1"}


class FakeCompilerOfPrograms(FakeCompiler):
    """A compiler whose artifacts are programs."""

    artifacts_are_code = True


class Compilers(dict[str, type[FakeCompiler]]):
    """A registry in which all other compilers need packages that are not installed."""

    def __missing__(self, name: str) -> type[FakeCompiler]:
        raise ImportError(f"compiled engine {name!r} needs a package")


class Loading:
    """An artifact's loading graphs; ``begun`` holds the names of all that have started."""

    begun: ClassVar[list[str]] = []

    def __init__(
        self, engine: str, precision: str, folders: Mapping[str, Path], caches: Mapping[str, GraphCache]
    ) -> None:
        self.name, self.folders, self.caches = f"{engine}-{precision}", folders, caches
        self.begun.append(self.name)


class Loaded(FakeEngine):
    """The engine of an artifact."""

    optimized = True

    def __init__(self, graphs: Loading) -> None:
        super().__init__()
        self.name = graphs.name
        self.folders, self.caches = graphs.folders, graphs.caches


class Model:
    """A model directory with a real base model and artifacts of a few bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = ROOT / "models" / "emoji" / "base_model"
        for component in ("unet", "vae", "text_encoder"):
            (folder / "base_model" / component).mkdir(parents=True)
            shutil.copy(base / component / "config.json", folder / "base_model" / component)
            (folder / "base_model" / component / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
        shutil.copy(base / "model_index.json", folder / "base_model")
        self.store = ArtifactStore(folder / "optimized_model")

    def add(self, speed_up: float = 2.0, **changes: Any) -> Artifact:
        """Place an artifact that fits, except for the changes."""
        self.store.root.mkdir(exist_ok=True)
        figures = FIGURES.model_copy(update={"seconds_per_step": 1.0, "eager_seconds_per_step": speed_up})
        folder = made(self.store.root / ".new")
        fields = {"fingerprint": fingerprint(self.folder), "figures": figures, **changes}
        return self.store.place(folder, manifest_of(folder, **fields))

    def change(self) -> None:
        """Replace the weights."""
        (self.folder / "base_model" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other weights")


def choice_of(model: Model, **settings: str) -> EngineChoice:
    return EngineChoice(Settings(model_dir=model.folder, **settings))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
