"""Fixtures shared by several modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.graphs import GRAPHS


@pytest.fixture(scope="session")
def folders(components: Components, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the emoji model's graphs, compiled for OpenVINO in float32."""
    made = {name: tmp_path_factory.mktemp(name) for name in GRAPHS}
    for name, folder in made.items():
        COMPILERS["openvino"]().compile(GRAPHS[name](components), folder, "float32")
    return made
