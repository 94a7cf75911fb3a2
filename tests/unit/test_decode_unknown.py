"""Names of a request that are no fields: what the caller is told of them."""

from __future__ import annotations

import pytest

from triton_diffusers.contract import INPUTS
from triton_diffusers.decode import unknown_fields


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("stesp", "'stesp' is no field of this model and was ignored; did you mean steps?"),
        ("Prompt", "'Prompt' is no field of this model and was ignored; did you mean prompt?"),
        ("xyzzy", "'xyzzy' is no field of this model and was ignored"),
        ("\ud800\n", "'\\ud800\\n' is no field of this model and was ignored"),
        ("s" * 10_000, f"'{'s' * 78}… is no field of this model and was ignored"),
        ("steps", "steps: sent as a parameter and ignored; send it as an input"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_known_one(name: str, warning: str) -> None:
    assert unknown_fields([name], INPUTS) == (warning,)


def test_what_is_told_is_bounded() -> None:
    told = unknown_fields([f"name-{number}" for number in range(1000)], INPUTS)
    assert len(told) == 5
    assert told[-1] == "996 more names that are no fields of this model were ignored"


def test_nothing_is_told_of_nothing_and_of_tritons_own() -> None:
    assert unknown_fields([], INPUTS) == ()
    assert unknown_fields(["triton_enable_empty_final_response"], INPUTS) == ()
