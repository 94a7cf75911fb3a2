"""Temporary attributes of modules, used while tracing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Attribute = tuple[Any, str, Any]
"""An object, an attribute name and its temporary value."""


@contextmanager
def patched(attributes: Sequence[Attribute]) -> Iterator[None]:
    """Set attributes inside the context and restore them afterwards."""
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
