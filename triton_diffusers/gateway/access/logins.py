"""Keys as authentication sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from triton_diffusers.gateway.access import rows
from triton_diffusers.gateway.access.caller import Caller, Role
from triton_diffusers.gateway.jobs.database import Database, Row, Session

_USED_SECONDS = 60.0  # so that not every request writes

_LOGIN = """SELECT api_keys.id, api_keys.digest, api_keys.secret, api_keys.scopes, api_keys.models, api_keys.last_used,
        users.id AS owner, users.name, users.role, users.team, users.weight * COALESCE(teams.weight, 1.0) AS weight
    FROM api_keys JOIN users ON users.id = api_keys.user_id LEFT JOIN teams ON teams.id = users.team
    WHERE users.disabled = 0 AND api_keys.revoked IS NULL AND (api_keys.expires IS NULL OR api_keys.expires > :now)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A key that may be used, and the caller that it stands for. ``secret`` is empty unless the key signs requests."""

    caller: Caller
    digest: str = field(repr=False)
    secret: str = field(repr=False)
    is_stale: bool


class Logins:
    """Keys that are neither revoked nor expired, of users who are not disabled."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has_users(self) -> bool:
        """Return True if there is a user."""
        return self._database.read(rows.has_users)

    def find(self, key_id: str) -> Login | None:
        """Return the key with an id."""

        def find(session: Session) -> Login | None:
            found = session.rows(f"{_LOGIN} AND api_keys.id = :id", id=key_id, now=session.now())
            return _login(found[0], session.now()) if found else None

        return self._database.read(find)

    def signing(self) -> Sequence[Login]:
        """Return all keys that can sign requests."""

        def find(session: Session) -> Sequence[Login]:
            statement = f"{_LOGIN} AND api_keys.secret != '' ORDER BY api_keys.id"
            return [_login(row, session.now()) for row in session.rows(statement, now=session.now())]

        return self._database.read(find)

    def used(self, key_id: str) -> None:
        """Note that a key was used now."""
        self._database.write(
            lambda session: session.execute(
                "UPDATE api_keys SET last_used = :now WHERE id = :id", id=key_id, now=session.now()
            ),
            durable=False,
        )


def _login(row: Row, now: float) -> Login:
    caller = Caller(
        owner=row["owner"],
        user=row["name"],
        team=row["team"],
        key_id=row["id"],
        role=Role(row["role"]),
        scopes=frozenset(json.loads(row["scopes"])),
        models=frozenset(json.loads(row["models"])),
        weight=row["weight"],
    )
    is_stale = row["last_used"] is None or now - row["last_used"] > _USED_SECONDS
    return Login(caller=caller, digest=row["digest"], secret=row["secret"], is_stale=is_stale)
