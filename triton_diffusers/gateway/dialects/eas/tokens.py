"""Callers of services: by keys that sign requests, and by the tokens of services."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from triton_diffusers.gateway.access.caller import REFERENCE, Caller
from triton_diffusers.gateway.dialects.eas.signature import is_authorized, verify_eas_signature
from triton_diffusers.gateway.settings import GatewaySettings

_PREFIX = "/api/predict/"


def is_signed_with(secret: str, scope: Scope, signature: str) -> bool:
    """Return True if a request of a service was signed with a key; other routes do not check the body's digest."""
    path: str = scope["path"]
    method = scope.get("method", "GET")
    return path.startswith(_PREFIX) and verify_eas_signature(
        secret, signature, method=method, path=path, headers=Headers(scope=scope)
    )


def service_caller(settings: GatewaySettings, connection: HTTPConnection) -> Caller | None:
    """Return the caller who shows the token of the service that a request is for; all of them are one owner."""
    path: str = connection.scope["path"]
    if not path.startswith(_PREFIX):
        return None
    name = path.removeprefix(_PREFIX).partition("/")[0]
    service = settings.service(name)
    if not service.token:
        return None
    method = connection.scope.get("method", "GET")
    if not is_authorized(service.token, method=method, path=path, headers=connection.headers):
        return None
    return Caller(owner=f"service {name}", user=name, scopes=frozenset((REFERENCE,)))
