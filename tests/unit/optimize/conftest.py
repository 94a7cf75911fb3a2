"""A model directory, and compilers that compile nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fake_engine import FakeEngine
from tests.unit.optimize.fakes import Compilers, FakeCompiler, FakeCompilerOfPrograms, Loaded, Loading, Model
from triton_diffusers.engines import compiled
from triton_diffusers.optimize import choice as choice_module
from triton_diffusers.settings import Settings


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the compilers, graphs and engines that a choice knows."""

    def load(settings: Settings, graphs: Loading) -> Loaded:
        if (graphs.folders["unet"] / "model.xml").read_bytes() == b"not what it reads":
            raise RuntimeError("Cannot create\nthe network")
        return Loaded(graphs)

    monkeypatch.setattr(compiled, "load_compiled", load)
    monkeypatch.setattr(choice_module, "LoadingGraphs", Loading)
    monkeypatch.setattr(Loading, "begun", [])
    monkeypatch.setattr(choice_module, "load_components", lambda settings: None)
    monkeypatch.setattr(choice_module, "ENGINES", {"eager": lambda components: FakeEngine()})
    compilers = Compilers(openvino=FakeCompiler, inductor=FakeCompilerOfPrograms)
    monkeypatch.setattr(choice_module, "COMPILERS", compilers)
