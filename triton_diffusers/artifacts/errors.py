"""What is said of an artifact that cannot be read or placed."""

from __future__ import annotations


class ArtifactError(RuntimeError):
    """An artifact cannot be read or placed; the message is one line that names it and says why."""
