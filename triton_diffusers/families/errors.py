"""Error of a checkpoint that a family refuses."""

from __future__ import annotations


class UnsupportedComponent(ValueError):
    """A component's config is unsupported, or inconsistent with that of another component."""

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component}: {reason}")
        self.component, self.reason = component, reason
