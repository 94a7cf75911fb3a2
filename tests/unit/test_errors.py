"""The error tree."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable

import pytest

from triton_diffusers import errors
from triton_diffusers.errors import (
    EngineFailure,
    InvalidImage,
    InvalidRequest,
    NotTranslated,
    TimedOut,
    TritonDiffusersError,
    shown,
)

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TritonDiffusersError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_is_described_and_in_the_tree(kind: type[TritonDiffusersError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__doc__


def test_messages_name_field_value_and_limit() -> None:
    assert str(InvalidRequest("steps", 0, "must be between 1 and 150")) == (
        "steps: 0 is invalid: must be between 1 and 150"
    )
    assert str(NotTranslated("prompt")).startswith("prompt: this server has no working translator")


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("steps", 0, "too few"),
        InvalidImage("image", b"x", "no image"),
        NotTranslated("prompt"),
        TimedOut(2.5),
        EngineFailure(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled_whatever_their_constructors_take(error: TritonDiffusersError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.args, vars(copy)) == (type(error), str(error), error.args, vars(error))


@pytest.mark.parametrize("length", [78, 79, 1000])
def test_shown_values_are_cut_to_80_characters(length: int) -> None:
    text = shown("x" * length)
    assert len(text) == min(80, length + 2)
    assert text.endswith("…") == (length + 2 > 80)


@pytest.mark.parametrize("value", [b"x", "é", ("x", 1), [1.0, 2.0], (), ("x", [b"y"]), None, "x" * 78])
def test_short_values_are_shown_whole(value: object) -> None:
    assert shown(value) == repr(value)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: (value,) * 3, lambda value: [(value,)]])
def test_large_values_are_cut_before_their_repr(wrap: Callable[[bytes], object]) -> None:
    value = wrap(bytes(10**6))
    tracemalloc.start()
    try:
        text = shown(value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(text) == 80
    assert peak < 50_000


def test_shown_values_hold_no_control_characters() -> None:
    assert shown("a\n\0\x1b[31mb").isprintable()
