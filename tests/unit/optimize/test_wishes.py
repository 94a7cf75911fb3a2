"""What the two settings ask for, and which artifacts that means."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers.engines.compilers import COMPILERS as REGISTRY
from triton_diffusers.engines.compilers import PRECISIONS
from triton_diffusers.optimize.policy import Target, Wishes
from triton_diffusers.settings import Settings, SettingsError

COMPILERS = {"openvino": ("float32", "bfloat16", "int8"), "inductor": ("float32", "bfloat16")}


def wishes(engine: str = "auto", optimize: str = "off", dtype: Any = "auto") -> Wishes:
    return Wishes.read(Settings(engine=engine, optimize=optimize, dtype=dtype), COMPILERS)


def covered(wished: Wishes) -> set[str]:
    names = [(engine, precision) for engine in COMPILERS for precision in ("float32", "bfloat16", "int8")]
    return {f"{engine}-{precision}" for engine, precision in names if wished.covers(engine, precision)}


@pytest.mark.parametrize(
    ("engine", "optimize", "artifacts"),
    [
        ("auto", "off", {"openvino-float32", "openvino-bfloat16", "inductor-float32", "inductor-bfloat16"}),
        ("eager", "off", set()),
        ("openvino", "off", {"openvino-float32", "openvino-bfloat16"}),
        ("openvino-int8", "off", {"openvino-int8"}),
        ("openvino", "openvino-int8", {"openvino-float32", "openvino-bfloat16", "openvino-int8"}),
        ("openvino-float32", "openvino", {"openvino-float32"}),
    ],
)
def test_which_artifacts_may_serve(engine: str, optimize: str, artifacts: set[str]) -> None:
    """Cheaper arithmetic never silently: int8 serves only where it is asked for by name."""
    assert covered(wishes(engine, optimize)) == artifacts


@pytest.mark.parametrize(
    ("engine", "optimize", "built"),
    [
        ("auto", "off", None),
        ("auto", "openvino", Target("openvino")),
        ("auto", "openvino-int8", Target("openvino", "int8")),
        ("openvino", "openvino-bfloat16", Target("openvino", "bfloat16")),
        ("openvino-int8", "openvino", Target("openvino", "int8")),
    ],
)
def test_what_is_built(engine: str, optimize: str, built: Target | None) -> None:
    assert wishes(engine, optimize).build == built


@pytest.mark.parametrize(
    ("engine", "optimize", "named"),
    [
        ("warp", "off", "TRITON_DIFFUSERS_ENGINE: 'warp' is invalid: expected auto, eager, openvino, inductor"),
        ("openvino-int3", "off", "TRITON_DIFFUSERS_ENGINE: 'openvino-int3' is invalid"),
        ("openvino-", "off", "TRITON_DIFFUSERS_ENGINE: 'openvino-' is invalid"),
        ("openvino-float16", "off", "'openvino-float16' is invalid: openvino has float32, bfloat16, int8"),
        ("auto", "inductor-int8", "OPTIMIZE: 'inductor-int8' is invalid: inductor has float32, bfloat16"),
        ("auto", "eager", "TRITON_DIFFUSERS_OPTIMIZE: 'eager' is invalid: expected off, openvino"),
        ("auto", "on", "TRITON_DIFFUSERS_OPTIMIZE: 'on' is invalid"),
    ],
)
def test_a_value_that_is_not_known_is_named(engine: str, optimize: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        wishes(engine, optimize)


@pytest.mark.parametrize(
    ("engine", "optimize"),
    [("eager", "openvino"), ("inductor", "openvino"), ("openvino-float32", "openvino-int8")],
)
def test_nothing_is_built_that_would_not_be_used(engine: str, optimize: str) -> None:
    with pytest.raises(SettingsError, match="would not be used"):
        wishes(engine, optimize)


def test_a_precision_that_is_set_for_all_is_the_engines() -> None:
    assert wishes(optimize="openvino", dtype="float32").build == Target("openvino", "float32")
    assert wishes(engine="openvino", dtype="bfloat16").engine == Target("openvino", "bfloat16")
    assert wishes(optimize="openvino-int8", dtype="float32").build == Target("openvino", "int8")
    with pytest.raises(SettingsError, match="'openvino' is invalid with TRITON_DIFFUSERS_DTYPE=float16: openvino has"):
        wishes(engine="openvino", dtype="float16")


@pytest.mark.parametrize("name", ["openvino", "inductor"])
def test_the_precisions_that_are_known_are_the_compilers(name: str) -> None:
    assert set(REGISTRY[name]().precisions) <= set(PRECISIONS[name])
    assert PRECISIONS.keys() == set(REGISTRY)
