"""A registry whose entries are imported on first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class Registry:
    """A table of names and ``"module:attribute"``; the attribute is imported on the first look-up.

    An unknown name raises ``KeyError`` with the known names; a missing dependency raises ``ImportError`` that says
    which extra of the package brings it.
    """

    def __init__(self, kind: str, places: Mapping[str, str], extras: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._places = dict(places)
        self._extras = dict(extras or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Any:
        place = self._places.get(name)
        if place is None:
            raise KeyError(f"unknown {self.kind} {name!r}; known: {', '.join(self._places)}")
        module, _, attribute = place.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            extra = self._extras.get(name)
            hint = f"; install it with: pip install 'triton-diffusers[{extra}]'" if extra else ""
            raise ImportError(f"{self.kind} {name!r} needs the package {error.name!r}{hint}") from error
