"""Every error that a caller can meet, as one tree.

    TritonDiffusersError
     ├── InvalidRequest          the caller's mistake: field, value and rule
     │    └── InvalidImage       an image that cannot be fetched or read
     ├── NotFound                something that the request names does not exist
     ├── Busy                    the server is at its limits, or stopping; try again later
     ├── Cancelled               somebody cancelled the job
     │    └── TimedOut           the request's own timeout ended it
     └── EngineFailure           the server's fault
          ├── NotTranslated      Chinese text, and no working translator
          └── StorageFailure     a result cannot be stored

``api.statuses`` maps them to the statuses and codes of the API.
"""

from __future__ import annotations

from typing import Any

_MAX_SHOWN_CHARACTERS = 80


def shown(value: Any) -> str:
    """Return the ``repr`` of a caller's value, cut to a length that is safe to log and to send back."""
    # Cut the value first: the repr of an image of many megabytes is four times as long.
    text = repr(_head(value))
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[: _MAX_SHOWN_CHARACTERS - 1]}…"


def _head(value: Any) -> Any:
    """Return the beginning of a value; if it is cut, the rest is still too long to be shown whole."""
    if isinstance(value, str | bytes):
        return value[:_MAX_SHOWN_CHARACTERS]
    if isinstance(value, tuple):
        return tuple(_head(element) for element in value[:_MAX_SHOWN_CHARACTERS])
    if isinstance(value, list):
        return [_head(element) for element in value[:_MAX_SHOWN_CHARACTERS]]
    return value


class TritonDiffusersError(Exception):
    """Base class of all errors that a caller sees. They can be pickled, whatever their constructors take."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self))


def _restored(cls: type[TritonDiffusersError], args: tuple[Any, ...], fields: dict[str, Any]) -> TritonDiffusersError:
    error = cls.__new__(cls, *args)  # which sets the arguments
    vars(error).update(fields)
    return error


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
    """The server failed, and the request is not to blame."""


class NotTranslated(EngineFailure):
    """A text contains Chinese, and the server has no working translator."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field}: this server has no working translator (its log says why); write English, or send"
            " use_translate=false to use the text as it is"
        )
        self.field = field


class StorageFailure(EngineFailure):
    """A result cannot be stored; no part of it is left in the store."""
