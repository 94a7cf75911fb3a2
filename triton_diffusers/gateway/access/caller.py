"""The caller of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from starlette.requests import HTTPConnection

CALLER: Final = "triton_diffusers.caller"
"""Name in the scope of the request's ``Caller``."""

LOCAL_OWNER: Final = "local"

NATIVE, REFERENCE, OPENAI, A1111, ADMIN = "native", "reference", "openai", "a1111", "admin"
SCOPES: Final = (NATIVE, REFERENCE, OPENAI, A1111, ADMIN)
"""Scopes of a key: the dialects that it may be used for, and the administration."""


class Role(StrEnum):
    """Role of a user; each has the rights of the ones before it."""

    VIEWER = "viewer"
    USER = "user"
    MODEL_MANAGER = "model-manager"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Return True if this role has the rights of ``other``."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The user, and the key, that a request acts for.

    ``owner`` is the owner of its jobs: the user's id; ``team`` is the team's id, or empty. ``models`` are those that
    the key may be used for; empty: all. ``weight`` is the owner's in the fair queue.
    """

    owner: str
    user: str
    team: str = ""
    key_id: str = ""
    role: Role = Role.USER
    scopes: frozenset[str] = frozenset(SCOPES)
    models: frozenset[str] = frozenset()
    weight: float = 1.0


LOCAL: Final = Caller(owner=LOCAL_OWNER, user=LOCAL_OWNER, role=Role.ADMIN)
"""Everybody who reaches a gateway that has no users."""


def caller_of(connection: HTTPConnection) -> Caller:
    """Return the caller of a request, which the route's declaration has let in."""
    caller: Caller = connection.scope[CALLER]
    return caller
