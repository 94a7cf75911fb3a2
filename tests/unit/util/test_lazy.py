"""Names that are imported on first use."""

from __future__ import annotations

import sys

import pytest

from triton_diffusers.engines import ENGINES
from triton_diffusers.util.lazy import Registry


def test_a_name_is_imported_when_it_is_looked_up() -> None:
    sys.modules.pop("this", None)
    registry = Registry("thing", {"ordered": "collections:OrderedDict", "broken": "no.such.module:Thing"})
    assert registry["ordered"].__name__ == "OrderedDict"
    assert list(registry) == ["ordered", "broken"]
    assert "broken" in registry


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"unknown engine 'warp'; known: .*eager"):
        ENGINES["warp"]
    assert "warp" not in ENGINES


def test_a_missing_dependency_names_its_extra() -> None:
    registry = Registry("engine", {"fast": "no_such_package.engine:Fast"}, {"fast": "speed"})
    with pytest.raises(ImportError, match=r"'fast' needs the package 'no_such_package'.*triton-diffusers\[speed\]"):
        registry["fast"]


def test_a_missing_dependency_without_an_extra_is_named_too() -> None:
    with pytest.raises(ImportError, match=r"engine 'fast' needs the package 'no_such_package'$"):
        Registry("engine", {"fast": "no_such_package:Fast"})["fast"]
