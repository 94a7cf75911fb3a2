"""Detection of the interface that a server has."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from triton_diffusers_client.address import Address, Interface
from triton_diffusers_client.errors import ClientError, ConnectionFailedError, NotAuthorizedError, WrongProtocolError
from triton_diffusers_client.gateway.effects import Flow, Send
from triton_diffusers_client.gateway.session import Session

_SECONDS = 10.0


def detect(session: Session) -> Flow[Interface]:
    """Ask a server what it is. Raises ``WrongProtocolError`` if it is neither a gateway nor a Triton."""
    told = yield from _ask(session, "/health/live")
    if told.get("status") == "live":
        return Interface.GATEWAY
    told = yield from _ask(session, "/v2")
    if "extensions" in told:
        return Interface.TRITON
    raise WrongProtocolError(f"{session.address.url} answers, but is neither a gateway nor a Triton")


def _ask(session: Session, path: str) -> Flow[dict[str, Any]]:
    send = Send("GET", session.url(path), session.headers, seconds=_SECONDS)
    try:
        reply = yield from session.call(send)
        document = json.loads(reply.content)
    except NotAuthorizedError:
        raise
    except ClientError as error:
        if error.retryable:
            raise
        return {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def is_worth_a_look(error: ClientError, address: Address) -> bool:
    """Return True if a failure may come from a port that speaks another protocol."""
    cause = error.__cause__
    return isinstance(error, ConnectionFailedError) and (
        isinstance(cause, httpx2.RemoteProtocolError | httpx2.ReadError) or address.secure
    )
