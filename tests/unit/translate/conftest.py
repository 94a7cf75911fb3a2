"""A Marian folder for the engines' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.translate.marian import write_marian


@pytest.fixture(scope="session")
def written_marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write_marian(tmp_path_factory.mktemp("marian") / "translate")
