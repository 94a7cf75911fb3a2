"""Rows of users, teams and keys, in the job table's database. Each method is one transaction, on any thread."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.access import keys, rows
from triton_diffusers.gateway.access.accounts import ApiKey, NewKey, Team, User
from triton_diffusers.gateway.access.caller import SCOPES, Role
from triton_diffusers.gateway.jobs import bounds as work_bounds
from triton_diffusers.gateway.jobs.bounds import Bounds, subject
from triton_diffusers.gateway.jobs.database import Database, Session
from triton_diffusers.util.notice import NOTICE

audit = logging.getLogger(f"{__name__}.audit")

COMMAND_LINE: Final = "the command line"
"""Actor of the commands, who can write the database anyway."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MAX_KEY_NAME_CHARS = 64
_MAX_DAYS = 36_500
_MIN_WEIGHT, _MAX_WEIGHT = 0.001, 1000.0
_Named = TypeVar("_Named", Team, User)
_CODE_SECONDS = 24 * 3600.0


class AccessStore:
    """Users, teams and keys. ``actor`` is who does it, for the audit log.

    Users and keys are never deleted, so that the ledger's ids keep their names: they are disabled, and revoked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Teams.

    def add_team(self, name: str, *, weight: float = 1.0, actor: str) -> Team:
        """Make a team. Raises: InvalidRequest."""
        _check_name("team", name)
        _check_weight(weight)

        def add(session: Session) -> None:
            if session.rows("SELECT id FROM teams WHERE name = :name", name=name):
                raise InvalidRequest("team", name, "there is a team of this name")
            session.execute(
                "INSERT INTO teams VALUES (:id, :name, :weight)", id=rows.new_id(), name=name, weight=weight
            )

        self._database.write(add)
        _log(actor, f"adds team {name}")
        return self.team(name)

    def teams(self) -> Sequence[Team]:
        """Return all teams by their names."""
        return self._database.read(rows.teams)

    def team(self, name: str) -> Team:
        """Return a team. Raises: NotFound."""
        return _named("team", name, self.teams())

    def set_team(self, name: str, *, weight: float | None = None, bounds: Bounds | None = None, actor: str) -> Team:
        """Change a team; None: as it is. Raises: NotFound, InvalidRequest."""
        team = self.team(name)
        _check_weight(weight)

        def change(session: Session) -> None:
            if weight is not None:
                session.execute("UPDATE teams SET weight = :weight WHERE id = :id", weight=weight, id=team.id)
            if bounds is not None:
                work_bounds.set_bounds(session, subject("team", team.id), bounds)

        self._database.write(change)
        _log(actor, f"changes team {name}: {_changes(weight=weight, bounds=bounds)}")
        return self.team(name)

    # Users.

    def add_user(self, name: str, *, role: Role = Role.USER, team: str = "", weight: float = 1.0, actor: str) -> User:
        """Make a user. The first one must be an administrator, and owns what was drawn without a login.

        Raises: InvalidRequest. NotFound: the team.
        """
        _check_name("user", name)
        _check_weight(weight)
        team_id = self.team(team).id if team else ""
        self._database.write(lambda session: rows.add_user(session, name, role, team_id, weight))
        _log(actor, f"adds user {name}, {_changes(role=role, team=team)}")
        return self.user(name)

    def users(self) -> Sequence[User]:
        """Return all users by their names."""
        return self._database.read(rows.users)

    def user(self, name: str) -> User:
        """Return a user. Raises: NotFound."""
        return _named("user", name, self.users())

    def set_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        team: str | None = None,
        weight: float | None = None,
        disabled: bool | None = None,
        bounds: Bounds | None = None,
        actor: str,
    ) -> User:
        """Change a user; None: as it is. Raises: NotFound. InvalidRequest: no administrator would be left."""
        user = self.user(name)
        _check_weight(weight)
        new: dict[str, Any] = {
            "role": None if role is None else str(role),
            "team": self.team(team).id if team else team,
            "weight": weight,
            "disabled": None if disabled is None else int(disabled),
        }

        def change(session: Session) -> None:
            for column, value in new.items():
                if value is not None:
                    session.execute(f"UPDATE users SET {column} = :value WHERE id = :id", value=value, id=user.id)  # noqa: S608
            if bounds is not None:
                work_bounds.set_bounds(session, subject("user", user.id), bounds)
            if not session.rows("SELECT id FROM users WHERE role = 'admin' AND disabled = 0 LIMIT 1"):
                raise InvalidRequest("user", name, "an administrator must remain; make another one first")

        self._database.write(change)
        _log(actor, f"changes user {name}: {_changes(**new, bounds=bounds)}")
        return self.user(name)

    # Keys.

    def add_key(
        self,
        user: str,
        name: str = "",
        *,
        scopes: Collection[str] = (),
        models: Collection[str] = (),
        days: float | None = None,
        signs: bool = False,
        actor: str,
    ) -> NewKey:
        """Make a key; no ``scopes``: all but the administration, ``days``: until it expires.

        Raises: NotFound: the user. InvalidRequest.
        """
        chosen = sorted(scopes) or [scope for scope in SCOPES if scope != "admin"]
        _check_key(name, chosen, models, days)
        owner = self.user(user).id
        key_id, secret = self._database.write(
            lambda session: rows.add_key(session, owner, name, chosen, sorted(models), days, signs)
        )
        _log(actor, f"adds key {key_id} of {user}, {_changes(name=name, scopes=chosen, signs=signs, days=days)}")
        return NewKey(key=self.key(key_id), secret=secret)

    def keys(self, user_id: str | None = None) -> Sequence[ApiKey]:
        """Return the keys of a user, or of all, the oldest first."""
        return self._database.read(lambda session: rows.keys(session, user_id))

    def key(self, key_id: str) -> ApiKey:
        """Return a key. Raises: NotFound."""
        found = self._database.read(lambda session: rows.keys(session, None, key_id))
        if not found:
            raise NotFound(f"key {key_id[:80]!r} does not exist")
        return found[0]

    def set_key_bounds(self, key_id: str, bounds: Bounds, *, actor: str) -> ApiKey:
        """Replace the bounds of a key. Raises: NotFound, InvalidRequest."""
        self.key(key_id)
        self._database.write(lambda session: work_bounds.set_bounds(session, subject("key", key_id), bounds))
        _log(actor, f"changes key {key_id}: {_changes(bounds=bounds)}")
        return self.key(key_id)

    def revoke_key(self, key_id: str, user_id: str | None = None, *, actor: str) -> ApiKey:
        """Revoke a key, of one user or of any. Raises: NotFound."""
        condition = "" if user_id is None else " AND user_id = :user_id"

        def revoke(session: Session) -> int:
            return session.execute(
                f"UPDATE api_keys SET revoked = COALESCE(revoked, :now) WHERE id = :id{condition}",  # noqa: S608
                id=key_id,
                user_id=user_id,
                now=session.now(),
            )

        if not self._database.write(revoke):
            raise NotFound(f"key {key_id[:80]!r} does not exist")
        _log(actor, f"revokes key {key_id}")
        return self.key(key_id)

    # Setting up.

    def new_setup_code(self) -> str | None:
        """Return a code with which the first user can be made, for a day; None if there are users."""
        code = keys.new_code()

        def add(session: Session) -> str | None:
            session.execute("DELETE FROM setup_codes WHERE expires < :now", now=session.now())
            if rows.has_users(session):
                return None
            session.execute(
                "INSERT INTO setup_codes VALUES (:digest, :expires)",
                digest=keys.digest(code),
                expires=session.now() + _CODE_SECONDS,
            )
            return code

        return self._database.write(add)

    def set_up(self, code: str, name: str) -> NewKey:
        """Make the first user, an administrator, and a key. The codes of all gateways are used up.

        Raises: NotFound: the code is unknown or expired. InvalidRequest.
        """
        _check_name("user", name)

        def use(session: Session) -> tuple[str, str]:
            valid = session.rows("SELECT digest FROM setup_codes WHERE expires >= :now $for_update", now=session.now())
            if not any(keys.is_same(row["digest"], keys.digest(code)) for row in valid) or rows.has_users(session):
                raise NotFound("code: it is unknown, used or expired")
            session.execute("DELETE FROM setup_codes")
            owner = rows.add_user(session, name, Role.ADMIN, "", 1.0)
            return rows.add_key(session, owner, "first key", list(SCOPES), [], None, signs=False)

        key_id, secret = self._database.write(use)
        _log("the set-up code", f"adds user {name}, the first administrator, and key {key_id}")
        return NewKey(key=self.key(key_id), secret=secret)

    def names(self) -> Mapping[str, str]:
        """Return the names of users, teams and keys by their ids."""

        def read(session: Session) -> Mapping[str, str]:
            parts = ("SELECT id, name FROM users", "SELECT id, name FROM teams", "SELECT id, name FROM api_keys")
            return {row["id"]: row["name"] for part in parts for row in session.rows(part)}

        return self._database.read(read)


def _named(kind: str, name: str, known: Sequence[_Named]) -> _Named:
    found = next((each for each in known if each.name == name), None)
    if found is None:
        raise NotFound(f"{kind} {name[:80]!r} does not exist")
    return found


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(field, name, "must be 1 to 64 letters, digits, and . _ @ - after the first")


def _check_weight(weight: float | None) -> None:
    if weight is not None and not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
        raise InvalidRequest("weight", weight, f"must be a number between {_MIN_WEIGHT:g} and {_MAX_WEIGHT:g}")


def _check_key(name: str, scopes: Collection[str], models: Collection[str], days: float | None) -> None:
    if len(name) > _MAX_KEY_NAME_CHARS or not name.isprintable():
        raise InvalidRequest("name", name, f"must be at most {_MAX_KEY_NAME_CHARS} printable characters")
    for scope in scopes:
        if scope not in SCOPES:
            raise InvalidRequest("scopes", scope, f"must be some of: {', '.join(SCOPES)}")
    for model in models:
        if not _NAME.fullmatch(model):
            raise InvalidRequest("models", model, "must be names of models")
    if days is not None and not 0 < days <= _MAX_DAYS:
        raise InvalidRequest("days", days, f"must be a number above 0 and at most {_MAX_DAYS}")


def _changes(**values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _log(actor: str, act: str) -> None:
    audit.log(NOTICE, "%s %s", actor, act)
