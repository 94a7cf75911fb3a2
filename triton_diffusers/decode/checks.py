"""What the fields of a request are checked with; all raise ``InvalidRequest``, with field, value and limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.request import Fill, Function, OutputFormat, SafetyAction

Choice = TypeVar("Choice", Function, OutputFormat, Fill, SafetyAction)
T = TypeVar("T")


def between(field: str, value: Any, low: Any, high: Any) -> Any:
    """The value, if it is neither less than ``low`` nor more than ``high``."""
    # Written so that NaN, which compares false with everything, is refused.
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low} and {high}")
    return value


def choice(field: str, value: str, choices: type[Choice]) -> Choice:
    """The member of ``choices`` whose name on the wire the value is."""
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise InvalidRequest(field, value, f"must be one of: {known}") from None


def one_or_each(field: str, values: Sequence[T], default: T, number: int, things: str) -> Sequence[T]:
    """A value for each of so many things: one stands for all, none for the default."""
    if len(values) not in (0, 1, number):
        raise InvalidRequest(field, values, f"one value, or one for each of the {number} {things}")
    return values if len(values) == number else tuple(values or (default,)) * number
