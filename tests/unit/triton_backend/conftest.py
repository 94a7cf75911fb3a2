"""The adapter's modules without a Triton."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from unittest.mock import MagicMock

import pytest

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
