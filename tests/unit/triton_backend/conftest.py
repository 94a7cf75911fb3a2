"""The adapter's modules without a Triton."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.triton_backend.played import Client, box

PACKAGE = "triton_diffusers.triton_backend"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Triton's module for Python backends, which is in its model processes only."""
    made = MagicMock()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", made)
    return made


@pytest.fixture
def adapter(backend: MagicMock) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the adapter; it is forgotten after the test."""
    before = set(sys.modules)
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    for name in set(sys.modules) - before:
        if name.startswith(PACKAGE):
            del sys.modules[name]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def mailbox(adapter: Callable[[str], ModuleType], client: Client, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = adapter("mailbox")
    monkeypatch.setattr(module, "MetricsExporter", MagicMock())
    monkeypatch.setattr(module, "JobBoard", MagicMock())
    monkeypatch.setattr(module, "EngineSupervisor", MagicMock())
    monkeypatch.setattr(module, "EngineClient", MagicMock(return_value=client))
    return module


@pytest.fixture
def opened(mailbox: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Return a mailbox before engines that the test plays."""
    made = box(mailbox, runtime_dir=tmp_path, poll_seconds=0.01)
    yield made
    made.close()
