"""The commands that the two distributions install lead to functions that exist."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("project", ["pyproject.toml", "client/pyproject.toml"])
def test_installed_commands_exist(project: str) -> None:
    # The environment's own metadata may be older than the file.
    scripts = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts
    for command, target in scripts.items():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), command
