"""Authentication: from a request's credentials to its caller."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from triton_diffusers.gateway.access.caller import LOCAL, Caller


class Authenticator:
    """Finds out who calls."""

    async def authenticate(self, connection: HTTPConnection) -> Caller:
        """Return the caller of a request. Without users, everybody who reaches the gateway is the same one."""
        return LOCAL
