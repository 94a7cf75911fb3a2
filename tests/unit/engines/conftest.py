"""Fixtures shared by several modules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.settings import Settings
from triton_diffusers.util.files import locked


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the emoji model's graphs, compiled for OpenVINO in float32 once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "graphs"
    root.mkdir(exist_ok=True)
    made = {name: root / name for name in GRAPHS}
    with locked(root / "lock"):
        if not (root / "complete").exists():
            # Not the shared components: engines of other tests leave tensors of inference mode in them, which fail
            # the export.
            components = load_components(Settings(model_dir=ROOT / "models" / "emoji", dtype="float32"))
            for name, folder in made.items():
                folder.mkdir()
                COMPILERS["openvino"]().compile(GRAPHS[name](components), folder, "float32")
            (root / "complete").touch()
    return made


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    runtime = tmp_path_factory.mktemp("runtime")
    return Settings(model_dir=ROOT / "models" / "emoji", dtype="float32", runtime_dir=runtime)


@pytest.fixture(scope="module")
def eager(settings: Settings) -> EagerEngine:
    return EagerEngine(load_components(settings))
