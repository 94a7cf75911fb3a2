"""The engine policy of the two settings, and the artifacts that it covers."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers.engines.compilers import COMPILERS as REGISTRY
from triton_diffusers.engines.compilers import PRECISIONS
from triton_diffusers.optimize.policy import EnginePolicy, Target
from triton_diffusers.settings import Settings, SettingsError

COMPILERS = {"openvino": ("float32", "bfloat16", "int8"), "inductor": ("float32", "bfloat16")}


def policy(engine: str = "auto", optimize: str = "off", dtype: Any = "auto") -> EnginePolicy:
    return EnginePolicy.read(Settings(engine=engine, optimize=optimize, dtype=dtype), COMPILERS)


def covered(by: EnginePolicy) -> set[str]:
    names = [(engine, precision) for engine in COMPILERS for precision in ("float32", "bfloat16", "int8")]
    return {f"{engine}-{precision}" for engine, precision in names if by.covers(engine, precision)}


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
def test_a_policy_covers_lossless_and_named_artifacts(engine: str, optimize: str, artifacts: set[str]) -> None:
    """Lossy precisions never serve silently: int8 only where a setting names it."""
    assert covered(policy(engine, optimize)) == artifacts


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
def test_a_policy_names_the_engine_to_build(engine: str, optimize: str, built: Target | None) -> None:
    assert policy(engine, optimize).build == built


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
def test_an_unknown_value_is_an_error_that_names_it(engine: str, optimize: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        policy(engine, optimize)


@pytest.mark.parametrize(
    ("engine", "optimize"),
    [("eager", "openvino"), ("inductor", "openvino"), ("openvino-float32", "openvino-int8")],
)
def test_a_build_that_would_not_be_used_is_an_error(engine: str, optimize: str) -> None:
    with pytest.raises(SettingsError, match="would not be used"):
        policy(engine, optimize)


def test_the_dtype_setting_applies_to_the_engine() -> None:
    assert policy(optimize="openvino", dtype="float32").build == Target("openvino", "float32")
    assert policy(engine="openvino", dtype="bfloat16").engine == Target("openvino", "bfloat16")
    assert policy(optimize="openvino-int8", dtype="float32").build == Target("openvino", "int8")
    with pytest.raises(SettingsError, match="'openvino' is invalid with TRITON_DIFFUSERS_DTYPE=float16: openvino has"):
        policy(engine="openvino", dtype="float16")


@pytest.mark.parametrize("name", ["openvino", "inductor"])
def test_known_precisions_include_those_of_the_compilers(name: str) -> None:
    assert set(REGISTRY[name]().precisions) <= set(PRECISIONS[name])
    assert PRECISIONS.keys() == set(REGISTRY)
