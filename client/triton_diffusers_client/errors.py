"""Every error that the client raises, as one tree.

    ClientError
     ├── InvalidRequestError     a field's value is not acceptable
     ├── NotAuthorizedError      a proxy or the server wants another key (401, 403)
     ├── WrongProtocolError      the port speaks another protocol than the URL says
     ├── NotSupportedError       a call that the server's Triton does not support
     ├── NotFoundError           no such task, model or file on the server
     ├── CancelledError          somebody cancelled the job
     ├── RequestTimeoutError     the client's time was over first (also a TimeoutError)
     ├── BusyError               the server's queue is full                              (retryable)
     ├── ServerRestartingError   a model's process died or is being loaded               (retryable)
     ├── ConnectionFailedError   the connection broke (also a ConnectionError)           (retryable)
     │    └── UnreachableError   nobody answers at the server's address                  (retryable, once met)
     └── ServerError             anything else that the server could not do

"Retryable" errors are those that the client tries again by itself before it raises them; which statuses of Triton
become which error is written in ``statuses``. A server that never answered this client is not waited for: a wrong
address is likelier than a restart.
"""

from __future__ import annotations

from typing import ClassVar


class ClientError(Exception):
    """Base class of the client's errors. ``retryable``: the same request may succeed a little later."""

    retryable: ClassVar[bool] = False


class InvalidRequestError(ClientError):
    """A field's value is not acceptable; the message names the field, the value and the limit."""


class NotAuthorizedError(ClientError):
    """The call lacks a valid API key, or the key does not allow it; see ``Client(api_key=…)``."""


class WrongProtocolError(ClientError):
    """The server's port speaks another protocol than the URL's; the message says which URL to use."""


class NotSupportedError(ClientError):
    """The server's Triton does not support the call, independently of its fields."""


class NotFoundError(ClientError):
    """Something that the request names does not exist on the server: a task, a model, a file."""


class CancelledError(ClientError):
    """The job was cancelled before it was finished."""


class RequestTimeoutError(ClientError, TimeoutError):
    """The answer did not come within the timeout."""


class BusyError(ClientError):
    """The server's queue is full."""

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
