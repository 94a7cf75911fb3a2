"""Detection of a port's protocol, to explain a failed connection."""

from __future__ import annotations

import socket

from triton_diffusers_client.address import Address
from triton_diffusers_client.errors import WrongProtocolError

_SECONDS = 2.0
_HTTP2_FRAME_HEADER = 9
_HTTP2_SETTINGS = 4
_TLS_ALERT = b"\x15"


def wrong_protocol(address: Address) -> WrongProtocolError | None:
    """Return the error that names the actual protocol of ``address``; None if the protocol is right.

    Connects once and asks in plain HTTP. A gRPC server begins with an HTTP/2 SETTINGS frame whatever it is asked, and a
    TLS server answers with an alert.
    """
    scheme = _spoken(address)
    if scheme in (None, address.scheme) or (scheme == "tls" and address.secure):
        return None
    if scheme == "tls":
        return WrongProtocolError(f"{address.netloc} speaks TLS: use {address.scheme}s://{address.netloc}")
    name, asked = _NAMES[str(scheme)], _NAMES[address.scheme]
    return WrongProtocolError(f"{address.netloc} speaks {name}, not {asked}: use {scheme}://{address.netloc}")


_NAMES = {"http": "HTTP", "https": "HTTPS", "grpc": "gRPC", "grpcs": "gRPC over TLS"}


def _spoken(address: Address) -> str | None:
    try:
        with socket.create_connection((address.host, address.port), timeout=_SECONDS) as connection:
            connection.settimeout(_SECONDS)
            host = address.netloc.encode("ascii", "replace")
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
            begin = connection.recv(_HTTP2_FRAME_HEADER)
    except OSError:
        return None
    if begin.startswith(b"HTTP/1"):
        return "http"
    if begin.startswith(_TLS_ALERT):
        return "tls"
    if len(begin) == _HTTP2_FRAME_HEADER and begin[3] == _HTTP2_SETTINGS and not any(begin[5:]):
        return "grpc"
    return None
