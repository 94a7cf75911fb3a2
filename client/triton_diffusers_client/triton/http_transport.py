"""Triton over HTTP.

``tritonclient.http`` packs and unpacks the tensors, but does not carry them: it lives in gevent's world, where a
client belongs to one thread and cannot be interrupted from another. The standard library's connections can.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote

import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

from triton_diffusers_client.address import Address
from triton_diffusers_client.errors import (
    CancelledError,
    ClientError,
    ConnectionFailedError,
    RequestTimeoutError,
    ServerError,
    UnreachableError,
)
from triton_diffusers_client.protocols import wrong_protocol
from triton_diffusers_client.triton import statuses
from triton_diffusers_client.triton.tensors import Array
from triton_diffusers_client.triton.transport import server_timeout

_CONNECT_SECONDS = 10.0
_HEADER_LENGTH = "Inference-Header-Content-Length"
_MAX_SHOWN_CHARACTERS = 200
_NOT_HTTP = (http.client.BadStatusLine, http.client.LineTooLong)


class HttpTransport:
    """See ``transport.Transport``. Idle connections are kept for the next call of any thread."""

    def __init__(self, address: Address, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.headers = dict(headers or {})
        self.netloc = address.netloc
        self._tls = ssl.create_default_context() if address.secure else None
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False

    def call(self, model: str, inputs: Mapping[str, Array], timeout: float | None) -> HttpCall:
        """Pack the request, which is sent by the call's ``result``."""
        return HttpCall(self, f"{self.address.path}/v2/models/{quote(model)}/infer", inputs, timeout)

    def close(self) -> None:
        """Close idle connections; those in use close when their call ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def take(self) -> http.client.HTTPConnection:
        """Return a connection for exclusive use; it may not be connected yet."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if _is_alive(connection):
                    return connection
                connection.close()
        address = self.address
        if self._tls is not None:
            return http.client.HTTPSConnection(address.host, address.port, timeout=_CONNECT_SECONDS, context=self._tls)
        return http.client.HTTPConnection(address.host, address.port, timeout=_CONNECT_SECONDS)

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class HttpCall:
    """See ``transport.Call``."""

    def __init__(self, transport: HttpTransport, path: str, inputs: Mapping[str, Array], timeout: float | None) -> None:
        self._transport = transport
        self._path = path
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._body, self._header_length = triton.InferenceServerClient.generate_request_body(
            [_tensor(name, array) for name, array in inputs.items()], timeout=server_timeout(timeout)
        )
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._cancelled = False

    def result(self) -> Mapping[str, Array]:
        """Send the request and wait for the answer."""
        status, header_length, body = self._exchange()
        if status != http.HTTPStatus.OK:
            raise statuses.from_http(status, _message(body))
        try:
            answer = triton.InferenceServerClient.parse_response_body(body, header_length=header_length)
            return {output["name"]: answer.as_numpy(output["name"]) for output in answer.get_response()["outputs"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"the answer is none of Triton's: {_shown(body)}") from error

    def cancel(self) -> None:
        """Break the connection. Triton does not notice that, so a job has to be cancelled by its id too."""
        with self._lock:
            self._cancelled = True
            if self._connection is not None and self._connection.sock is not None:
                with suppress(OSError):
                    # Not an SSLSocket's own shutdown, which takes TLS away under the thread that reads.
                    socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)

    def _exchange(self) -> tuple[int, int | None, bytes]:
        """Status, length of the JSON part, and body."""
        connection = self._transport.take()
        try:
            self._connect(connection)
            headers = dict(self._transport.headers)
            if self._header_length is not None:
                headers[_HEADER_LENGTH] = str(self._header_length)
            connection.request("POST", self._path, self._body, headers)
            response = connection.getresponse()
            body = response.read()
        except BaseException as error:  # an answer that nobody has read must not be taken for the next call's
            connection.close()
            if isinstance(error, OSError | http.client.HTTPException) and not isinstance(error, ClientError):
                raise self._failure(error) from error
            raise
        with self._lock:
            self._connection = None
            broken = self._cancelled
        if broken:
            connection.close()
        else:
            self._transport.give_back(connection)
        length = response.getheader(_HEADER_LENGTH)
        return response.status, int(length) if length else None, body

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        if connection.sock is None:
            connection.timeout = min(_CONNECT_SECONDS, self._seconds_left() or _CONNECT_SECONDS)
            try:
                connection.connect()
            except OSError as error:
                wrong = wrong_protocol(self._transport.address) if isinstance(error, ssl.SSLError) else None
                raise wrong or UnreachableError(f"cannot reach {self._told(error)}") from error
        connection.sock.settimeout(self._seconds_left())
        with self._lock:
            if self._cancelled:
                raise CancelledError("cancelled before it was sent")
            self._connection = connection

    def _seconds_left(self) -> float | None:
        if self._deadline is None:
            return None
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise RequestTimeoutError("the time for this request is over")
        return seconds

    def _failure(self, error: Exception) -> ClientError:
        if self._cancelled:
            return CancelledError("the request was cancelled")
        if isinstance(error, TimeoutError):
            return RequestTimeoutError("no answer within the time for this request")
        # A port that speaks another protocol answers with no HTTP, or hangs up.
        wrong = wrong_protocol(self._transport.address) if isinstance(error, _NOT_HTTP) else None
        return wrong or ConnectionFailedError(self._told(error))

    def _told(self, error: Exception) -> str:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if not reason.isprintable():
            reason = "the answer is not HTTP"
        return f"{self._transport.netloc}: {reason}"


def _tensor(name: str, array: Array) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def _is_alive(connection: http.client.HTTPConnection) -> bool:
    """Return True if an idle connection can be used again: a server that sends unasked is closing it."""
    try:
        return connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]
    except (OSError, ValueError):
        return False


def _message(body: bytes) -> str:
    """Return the message of an answer other than 200: Triton's ``error``, or the text of a proxy."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return _shown(body)


def _shown(body: bytes) -> str:
    text = " ".join(body.decode(errors="replace").split())
    return text[:_MAX_SHOWN_CHARACTERS] or "an empty answer"
