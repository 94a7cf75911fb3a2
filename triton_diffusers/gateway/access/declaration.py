"""Declarations of the rights that routes need.

Each route has one, by ``dependencies=[requires(…)]`` or ``[PUBLIC]`` of itself or its router; an application with a
route that has none does not start. ``AccessMiddleware`` enforces them before it reads a request's body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Depends
from fastapi.routing import iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from triton_diffusers.gateway.access.caller import CALLER, Caller, Role

SMALL_BODY_BYTES: Final = 50_000
"""Bound on bodies of callers who have shown no key, and of documents that are decoded as they are."""

_SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Rights that a route needs: a scope of the key (empty: any), and a role to read and to write.

    A ``public`` route needs none; ``signed`` routes check signed URLs themselves. Bodies have the gateway's bound, or a
    lower one of ``max_body_bytes``.
    """

    scope: str = ""
    read: Role = Role.VIEWER
    write: Role = Role.USER
    public: bool = False
    signed: bool = False
    max_body_bytes: int | None = None

    def __call__(self, connection: HTTPConnection) -> None:
        """Fail for a request that has passed no ``AccessMiddleware``."""
        if CALLER not in connection.scope:
            raise RuntimeError(f"{connection.url.path}: access was not checked")

    def allows(self, caller: Caller, method: str) -> bool:
        """Return True if a caller may use the route."""
        role = self.read if method in _SAFE_METHODS else self.write
        return caller.role.includes(role) and (not self.scope or self.scope in caller.scopes)


def requires(
    scope: str = "",
    *,
    read: Role = Role.VIEWER,
    write: Role = Role.USER,
    signed: bool = False,
    max_body_bytes: int | None = None,
) -> Any:
    """Return the dependency that declares the rights of a route, or of all routes of a router."""
    return Depends(Declaration(scope=scope, read=read, write=write, signed=signed, max_body_bytes=max_body_bytes))


PUBLIC: Final = Depends(Declaration(public=True, max_body_bytes=SMALL_BODY_BYTES))
"""Dependency of routes that need no caller."""


@dataclass(frozen=True, slots=True)
class GuardedRoute:
    """A route and its declaration; ``methods`` is empty for WebSockets."""

    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    declaration: Declaration

    def matches(self, path: str, method: str) -> bool:
        """Return True if a request is for this route; WebSockets have no method."""
        return self.pattern.match(path) is not None and (method in self.methods if method else not self.methods)


def guarded_routes(routes: Sequence[BaseRoute]) -> Sequence[GuardedRoute]:
    """Return all routes of an application. Raises: ValueError: one declares nothing."""
    guarded = []
    for route in iter_route_contexts(routes):
        declaration = _declaration(getattr(route, "dependencies", None) or ())
        if declaration is None:
            raise ValueError(f"{route.path}: the route declares no access")
        guarded.append(GuardedRoute(str(route.path), route.path_regex, frozenset(route.methods or ()), declaration))
    return guarded


def _declaration(dependencies: Sequence[Any]) -> Declaration | None:
    """Return the last of the declarations: the route's own comes after its router's."""
    found = [each.dependency for each in dependencies if isinstance(each.dependency, Declaration)]
    return found[-1] if found else None
