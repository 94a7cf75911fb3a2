"""Every error that a caller can meet, as one tree.

    TritonDiffusersError
     ├── InvalidRequest          the caller's mistake: field, value and rule
     │    └── InvalidImage     an image that cannot be had or read
     ├── NotFound                something that the request names is not there
     ├── Busy                    the server's bounds are reached, or it is stopping; try again later
     ├── Cancelled               somebody cancelled the job
     │    └── TimedOut           the request's own timeout ended it
     └── EngineFailure           the server's fault
          ├── NotTranslated      Chinese text, and no translator that works
          └── StorageFailure     a result cannot be stored

``api.statuses`` maps them to the statuses and codes of the API.
"""

from __future__ import annotations

from typing import Any

_LONGEST_SHOWN_VALUE = 80


def shown(value: Any) -> str:
    """``repr`` of a value from outside, cut to a length that is safe to log and to send back."""
    # Cut before as well: it may be an image of many megabytes, whose repr has four times as many.
    text = repr(_head(value))
    return text if len(text) <= _LONGEST_SHOWN_VALUE else f"{text[: _LONGEST_SHOWN_VALUE - 1]}…"


def _head(value: Any) -> Any:
    """As much of a value as can be shown of it; what is cut here is still too long to be shown whole."""
    if isinstance(value, str | bytes):
        return value[:_LONGEST_SHOWN_VALUE]
    if isinstance(value, tuple):
        return tuple(_head(element) for element in value[:_LONGEST_SHOWN_VALUE])
    if isinstance(value, list):
        return [_head(element) for element in value[:_LONGEST_SHOWN_VALUE]]
    return value


class TritonDiffusersError(Exception):
    """Base of all errors that are answered to a caller."""


class InvalidRequest(TritonDiffusersError):
    """A field's value is invalid; the message names the field, the value and the rule."""

    def __init__(self, field: str, value: Any, limit: str) -> None:
        self.field, self.value, self.rule = field, shown(value), limit
        super().__init__(f"{field}: {self.value} is invalid: {limit}")


class InvalidImage(InvalidRequest):
    """An image that a request brings or links to cannot be fetched, decoded or accepted."""


class NotFound(TritonDiffusersError):
    """Something that the request names does not exist."""


class Busy(TritonDiffusersError):
    """The queue is full, or the server is stopping; the same request may succeed later."""


class Cancelled(TritonDiffusersError):
    """The job was cancelled before it was finished."""


class TimedOut(Cancelled):
    """The job was not finished within the time that its request allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the job was cancelled: its timeout of {seconds:g} s is over (timeout_seconds)")


class EngineFailure(TritonDiffusersError):
    """The server could not do what it should have been able to do."""


class NotTranslated(EngineFailure):
    """A text has Chinese in it, and the server has no translator that works."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field}: this server has no translator that works (its log says why); write English, or send"
            " use_translate=false to have the text taken as it is"
        )
        self.field = field


class StorageFailure(EngineFailure):
    """A result cannot be stored; nothing of it is left in the store."""
