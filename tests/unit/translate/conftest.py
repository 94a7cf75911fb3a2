"""A Marian folder for tests of the engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.translate.marian import write_marian


@pytest.fixture(scope="session")
def written_marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shared Marian folder; tests must not write to it."""
    return write_marian(tmp_path_factory.mktemp("marian") / "translate")
