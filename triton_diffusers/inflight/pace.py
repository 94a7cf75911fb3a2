"""How much of the engine's time newcomers may take from those that run."""

from __future__ import annotations

# Seconds that nobody notices: cheap newcomers are made ready several at a time, and share their first step.
_UNNOTICED = 0.1


class Pace:
    """Lets admission take as long as the turns between take: a burst of newcomers slows others down by about half.

    What a newcomer needs is not known before; what it took too much is made up for before the next one's turn.
    """

    def __init__(self) -> None:
        self._owed = 0.0

    def allows(self, running: int) -> bool:
        """Whether another job may be made ready now, while so many run."""
        if not running:
            self._owed = 0.0
        return self._owed < _UNNOTICED

    def admitted(self, seconds: float) -> None:
        """A job was made ready in so many seconds."""
        self._owed += seconds

    def advanced(self, seconds: float) -> None:
        """A turn took so many seconds; what of it no newcomer uses is not saved up."""
        self._owed = max(self._owed, 0.0) - seconds
