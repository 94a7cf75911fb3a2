"""Users, teams and keys as the administration sees them. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from triton_diffusers.gateway.access.caller import Role
from triton_diffusers.gateway.jobs.bounds import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team of users; ``weight`` is that of its members' jobs in the fair queue."""

    id: str
    name: str
    weight: float
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user. The id owns the jobs, and is never another user's; ``team`` is a name, or empty."""

    id: str
    name: str
    team: str
    role: Role
    weight: float
    disabled: bool
    created: float
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of a user, without its secret. ``models`` are those that it may be used for; empty: all.

    ``signs`` keys can sign requests of PAI's SDK: they are kept readable.
    """

    id: str
    user: str
    name: str
    scopes: Sequence[str]
    models: Sequence[str]
    signs: bool
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made, and its secret, which is shown this once."""

    key: ApiKey
    secret: str = field(repr=False)
