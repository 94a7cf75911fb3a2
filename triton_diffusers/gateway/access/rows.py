"""Statements about users, teams and keys, within a transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.access.accounts import ApiKey, Team, User
from triton_diffusers.gateway.access.caller import LOCAL_OWNER, Role
from triton_diffusers.gateway.access.keys import digest, new_key
from triton_diffusers.gateway.jobs.bounds import DAY_SECONDS, Bounds, all_bounds, subject
from triton_diffusers.gateway.jobs.database import Row, Session

_USERS = "SELECT users.*, teams.name AS team_name FROM users LEFT JOIN teams ON teams.id = users.team"
# Of one user: those that sign are tried one by one, for each signature.
_MAX_KEYS = 100
_VALID_KEYS = """SELECT COUNT(*) AS number FROM api_keys
    WHERE user_id = :user_id AND revoked IS NULL AND (expires IS NULL OR expires > :now)"""
_KEYS = "SELECT api_keys.*, users.name AS user_name FROM api_keys JOIN users ON users.id = api_keys.user_id"


def new_id() -> str:
    """Return a new id of a user or a team."""
    return secrets.token_hex(8)


def has_users(session: Session) -> bool:
    """Return True if there is a user."""
    return bool(session.rows("SELECT id FROM users LIMIT 1"))


def add_user(session: Session, name: str, role: Role, team_id: str, weight: float) -> str:
    """Insert a user and return its id. Raises: InvalidRequest."""
    if session.rows("SELECT id FROM users WHERE name = :name", name=name):
        raise InvalidRequest("user", name, "there is a user of this name")
    first = not has_users(session)
    if first and role is not Role.ADMIN:
        raise InvalidRequest("role", str(role), "the first user must be an admin")
    user_id = LOCAL_OWNER if first else new_id()
    session.execute(
        "INSERT INTO users (id, name, team, role, weight, created) VALUES (:id, :name, :team, :role, :weight, :now)",
        id=user_id,
        name=name,
        team=team_id,
        role=str(role),
        weight=weight,
        now=session.now(),
    )
    return user_id


def add_key(
    session: Session,
    user_id: str,
    name: str,
    scopes: Sequence[str],
    models: Sequence[str],
    days: float | None,
    signs: bool,
) -> tuple[str, str]:
    """Insert a key; return its id and the key. Raises: InvalidRequest: the user has too many."""
    (row,) = session.rows(_VALID_KEYS, user_id=user_id, now=session.now())
    if row["number"] >= _MAX_KEYS:
        raise InvalidRequest("keys", row["number"], f"a user may have at most {_MAX_KEYS}; revoke one first")
    key_id, secret = new_key()
    session.execute(
        "INSERT INTO api_keys (id, user_id, name, digest, secret, scopes, models, created, expires)"
        " VALUES (:id, :user_id, :name, :digest, :secret, :scopes, :models, :now, :expires)",
        id=key_id,
        user_id=user_id,
        name=name,
        digest=digest(secret),
        secret=secret if signs else "",
        scopes=json.dumps(scopes),
        models=json.dumps(models),
        now=session.now(),
        expires=None if days is None else session.now() + days * DAY_SECONDS,
    )
    return key_id, secret


def teams(session: Session) -> Sequence[Team]:
    """Return all teams by their names."""
    bounds = all_bounds(session)
    return [
        Team(bounds=bounds.get(subject("team", row["id"]), Bounds()), **row)
        for row in session.rows("SELECT * FROM teams ORDER BY name")
    ]


def users(session: Session) -> Sequence[User]:
    """Return all users by their names."""
    bounds = all_bounds(session)
    return [
        User(
            **{name: row[name] for name in ("id", "name", "weight", "created")},
            team=row["team_name"] or "",
            role=Role(row["role"]),
            disabled=bool(row["disabled"]),
            bounds=bounds.get(subject("user", row["id"]), Bounds()),
        )
        for row in session.rows(f"{_USERS} ORDER BY users.name")
    ]


def keys(session: Session, user_id: str | None, key_id: str | None = None) -> Sequence[ApiKey]:
    """Return the keys of a user or of all, or the one with an id, the oldest first."""
    bounds = all_bounds(session)
    conditions = ["user_id = :user_id"] if user_id is not None else []
    conditions += ["api_keys.id = :key_id"] if key_id is not None else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = session.rows(f"{_KEYS}{where} ORDER BY api_keys.created, api_keys.id", user_id=user_id, key_id=key_id)
    return [_key(row, bounds) for row in rows]


def _key(row: Row, bounds: Mapping[str, Bounds]) -> ApiKey:
    return ApiKey(
        **{name: row[name] for name in ("id", "name", "created", "expires", "revoked", "last_used")},
        user=row["user_name"],
        scopes=json.loads(row["scopes"]),
        models=json.loads(row["models"]),
        signs=bool(row["secret"]),
        bounds=bounds.get(subject("key", row["id"]), Bounds()),
    )
