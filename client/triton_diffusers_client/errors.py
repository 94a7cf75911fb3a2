"""Every error that the client raises, as one tree.

    ClientError
     ├── InvalidRequestError     a field's value is not acceptable
     ├── NotAuthorizedError      a proxy or the server wants another key (401, 403)
     ├── WrongProtocolError      the port speaks another protocol than the URL says
     ├── NotSupportedError       a call that the server does not support
     ├── NotFoundError           no such job, model or file on the server
     ├── CancelledError          somebody cancelled the job
     ├── RequestTimeoutError     the time was over first (also a TimeoutError)
     ├── BusyError               the server's queue is full, or the caller's quota is    (retryable)
     ├── ServerRestartingError   a model's process died or is being loaded               (retryable)
     ├── ConnectionFailedError   the connection broke (also a ConnectionError)           (retryable)
     │    └── UnreachableError   nobody answers at the server's address                  (retryable, once met)
     └── ServerError             anything else that the server could not do

"Retryable" errors are those that the client tries again by itself before it raises them. Which statuses of Triton
become which error is written in ``triton.statuses``, and those of the gateway in ``gateway.faults``. A server that
never answered this client is not waited for: a wrong address is likelier than a restart.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

_INVALID = re.compile(r"(?P<field>[^:]+): (?P<value>.*?) is invalid: (?P<rule>.*)", re.DOTALL)


class ClientError(Exception):
    """Base class of the client's errors.

    ``retryable``: the same request may succeed a little later. ``retry_after``: the seconds until then, if the server
    has told them.
    """

    retryable: ClassVar[bool] = False
    retry_after: float | None = None


class InvalidRequestError(ClientError):
    """A field's value is not acceptable: ``<field>: <value> is invalid: <rule>``.

    ``field``, ``value`` (as the message shows it) and ``rule`` are the message's parts, or None where it has none.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        parts = _INVALID.fullmatch(message)
        self.field: str | None = parts["field"] if parts else None
        self.value: str | None = parts["value"] if parts else None
        self.rule: str | None = parts["rule"] if parts else None

    @classmethod
    def of(cls, field: str, value: str, rule: str) -> Self:
        """Return the error of a field."""
        return cls(f"{field}: {value} is invalid: {rule}")


class NotAuthorizedError(ClientError):
    """The call lacks a valid API key, or the key does not allow it; see ``Client(api_key=…)``."""


class WrongProtocolError(ClientError):
    """The server's port speaks another protocol than the URL's; the message says which URL to use, if there is one."""


class NotSupportedError(ClientError):
    """The server does not support the call, independently of its fields."""


class NotFoundError(ClientError):
    """Something that the request names does not exist on the server: a job, a model, a file."""


class CancelledError(ClientError):
    """The job was cancelled before it was finished."""


class RequestTimeoutError(ClientError, TimeoutError):
    """The answer did not come within the timeout."""


class BusyError(ClientError):
    """The server's queue is full, or the caller has too many jobs."""

    retryable = True


class ServerRestartingError(ClientError):
    """The model's process died, or the model is being loaded or unloaded."""

    retryable = True


class ConnectionFailedError(ClientError, ConnectionError):
    """The connection broke before the answer was there."""

    retryable = True


class UnreachableError(ConnectionFailedError):
    """No connection to the server's address could be made."""


class ServerError(ClientError):
    """The server failed, or its answer is invalid."""
