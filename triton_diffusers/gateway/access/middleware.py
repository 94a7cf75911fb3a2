"""Authentication and authorization of every request, before its body is read."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from triton_diffusers.errors import TritonDiffusersError
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import CALLER
from triton_diffusers.gateway.access.declaration import SMALL_BODY_BYTES, Declaration, GuardedRoute
from triton_diffusers.gateway.faults import Fault, Refused, fault_of
from triton_diffusers.gateway.middleware.body import MAX_BODY_BYTES
from triton_diffusers.gateway.middleware.faults import Render

_POLICY_VIOLATION = 1008
_DENIAL = "websocket.http.response"  # an extension of ASGI
# A path that nothing serves needs a caller, too: its body would be read before it is answered.
_NO_ROUTE = Declaration(max_body_bytes=SMALL_BODY_BYTES)


class AccessMiddleware:
    """Puts the caller into the scope of a request that its route lets in."""

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, routes: Sequence[GuardedRoute], render: Render
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._routes = routes
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises ``Refused``; WebSockets are denied here, as nothing above answers them."""
        if scope["type"] == "http":
            await self._admit(scope)
        elif scope["type"] == "websocket":
            try:
                await self._admit(scope)
            except (Refused, TritonDiffusersError) as error:
                await self._deny(scope, receive, send, fault_of(error))
                return
        await self._app(scope, receive, send)

    async def _deny(self, scope: Scope, receive: Receive, send: Send, fault: Fault) -> None:
        await receive()
        if _DENIAL in scope.get("extensions", {}):
            await self._render(scope["path"], fault)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": fault.message[:120]})

    async def _admit(self, scope: Scope) -> None:
        method = scope.get("method", "")
        declaration = self._declaration(scope["path"], method)
        scope[MAX_BODY_BYTES] = declaration.max_body_bytes
        if declaration.public or (declaration.signed and _is_signed(scope)):
            scope[CALLER], scope[MAX_BODY_BYTES] = None, SMALL_BODY_BYTES
            return
        caller = await self._authenticator.authenticate(HTTPConnection(scope))
        if not declaration.allows(caller, method or "GET"):
            needed = declaration.scope or declaration.write
            raise Refused(Fault(status=403, code=403, message=f"this key may not be used for this request ({needed})"))
        scope[CALLER] = caller

    def _declaration(self, path: str, method: str) -> Declaration:
        """Return the declaration of the route that will get the request, as the router finds it."""
        return next((route.declaration for route in self._routes if route.matches(path, method)), _NO_ROUTE)


def _is_signed(scope: Scope) -> bool:
    """Return True if a request has a signature, as its route reads it: the last of several counts."""
    return bool(QueryParams(scope["query_string"]).get("signature"))
