"""Fixtures: weights in their published layouts, and an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.preprocess import weights
from triton_diffusers.preprocess import sizes
from triton_diffusers.preprocess.networks import Networks
from triton_diffusers.preprocess.preprocessors import Preprocessors
from triton_diffusers.preprocess.registry import Pixels
from triton_diffusers.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks work on small images: VGG at 512 pixels takes seconds."""
    monkeypatch.setattr(sizes, "_SHORTER_SIDE", 64)
    monkeypatch.setattr(sizes, "_MAX_SIDE", 128)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with all files in ``preprocessors/``."""
    model_dir = tmp_path_factory.mktemp("model")
    root = model_dir / "preprocessors"
    for file in (weights.HED, weights.LINEART, weights.MLSD):
        weights.write_annotator(root, file)
    weights.write_depth(root)
    weights.write_segmentation(root)
    weights.write_people(root)
    weights.write_pose(root)
    return model_dir


@pytest.fixture(scope="session")
def preprocessors(model_dir: Path) -> Preprocessors:
    """Return all preprocessors, with the default settings."""
    return Preprocessors(Settings(model_dir=model_dir), CPU)


@pytest.fixture
def networks(model_dir: Path) -> Networks:
    """Return networks with an empty cache."""
    return Networks(model_dir / "preprocessors", CPU, 2**30)


@pytest.fixture
def pixels() -> Pixels:
    """Return a bright disc on a dark gradient, 150×90, so that neither side is a network's multiple."""
    rows, columns = np.mgrid[:90, :150]
    image = np.stack([columns, rows, columns // 2], axis=2).astype(np.uint8)
    image[(rows - 45) ** 2 + (columns - 60) ** 2 < 30**2] = (250, 240, 200)
    return image
