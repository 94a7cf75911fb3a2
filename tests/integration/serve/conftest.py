"""Servers of a test's own on tiny models, which start in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import RunningTriton, TritonStarter
from tests.integration.serve.models import write_models


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of the tiny models; see ``write_models``."""
    write_models(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Return the least that passes for a model directory."""
    folder = tmp_path / "model"
    (folder / "base_model").mkdir(parents=True)
    return folder


@pytest.fixture
def start(start_triton: TritonStarter, repository: Path, model_dir: Path) -> Callable[..., RunningTriton]:
    """Start a server of the test's own on the tiny models."""

    def start(*args: str, **options: Any) -> RunningTriton:
        return start_triton(model_repository=repository, model_dir=model_dir, args=args, **options)

    return start


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    """Threads for many callers at once."""
    with ThreadPoolExecutor(max_workers=80) as pool:
        yield pool
