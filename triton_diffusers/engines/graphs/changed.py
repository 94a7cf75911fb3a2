"""Modules that are otherwise for the time of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Attribute = tuple[Any, str, Any]
"""An object, the name of an attribute, and a value for it."""


@contextmanager
def changed(attributes: Sequence[Attribute]) -> Iterator[None]:
    """Within this, objects have these attributes of their own."""
    before = [(place, name, place.__dict__.get(name)) for place, name, _ in attributes]
    try:
        for place, name, value in attributes:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            if value is None:
                delattr(place, name)
            else:
                setattr(place, name, value)
