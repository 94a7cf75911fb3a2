"""Fixtures shared by several modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.settings import Settings


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the emoji model's graphs, compiled for OpenVINO in float32."""
    # Not the shared components: engines of other tests leave tensors of inference mode in them, which fail the export.
    components = load_components(Settings(model_dir=ROOT / "models" / "emoji", dtype="float32"))
    made = {name: tmp_path_factory.mktemp(name) for name in GRAPHS}
    for name, folder in made.items():
        COMPILERS["openvino"]().compile(GRAPHS[name](components), folder, "float32")
    return made
