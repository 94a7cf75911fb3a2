"""What is said when a model directory cannot be fetched."""

from __future__ import annotations


class SourceError(RuntimeError):
    """A source cannot be fetched or is refused; the message is one line that names it and says why."""


class Unreachable(SourceError):
    """The other side did not answer, or said that it is out of order; what was fetched before can still be used."""


class Interrupted(SourceError):
    """A download ended early; it can be resumed."""
