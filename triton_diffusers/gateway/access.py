"""Access: the owner that a request acts for."""

from __future__ import annotations

from starlette.requests import HTTPConnection

LOCAL_OWNER = "local"


def owner_of(connection: HTTPConnection) -> str:
    """Return the owner of a request's jobs. Without users, everybody who reaches the gateway is the same one."""
    return LOCAL_OWNER
