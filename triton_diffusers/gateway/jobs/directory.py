"""Runners that are alive, and callers' preferences: small facts beside the jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triton_diffusers.gateway.jobs.database import Database, Session
from triton_diffusers.gateway.jobs.job import JsonObject
from triton_diffusers.gateway.jobs.rows import check_text, to_json
from triton_diffusers.gateway.jobs.uptime import uptime

ANNOUNCEMENT_SECONDS = 30.0
"""How long an announcement holds without another one."""
_MAX_ANNOUNCEMENT_BYTES = 4_000_000  # some 50,000 adapters
_MAX_PREFERENCES_BYTES = 256_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A runner, the models that are ready there, and a description of what they have loaded."""

    runner: str
    pool: str
    models: Sequence[str]
    description: JsonObject


class Directory:
    """Announcements of runners, and preferences of owners. Thread-safe; methods raise ``TableUnavailable``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def announce(self, announcement: Announcement) -> None:
        """Keep a runner's announcement, in the place of its former one. Raises: InvalidRequest: it is too large."""
        check_text("runner", announcement.runner)
        description = to_json("description", announcement.description, _MAX_ANNOUNCEMENT_BYTES)

        def write(session: Session) -> None:
            now = uptime(session)
            session.execute("DELETE FROM runners WHERE alive_until <= :now", now=now)
            session.execute(
                "INSERT INTO runners VALUES (:name, :pool, :models, :description, :alive_until)"
                " ON CONFLICT (name) DO UPDATE SET pool = excluded.pool, models = excluded.models,"
                " description = excluded.description, alive_until = excluded.alive_until",
                name=announcement.runner,
                pool=announcement.pool,
                models=json.dumps(sorted(announcement.models)),
                description=description,
                alive_until=now + ANNOUNCEMENT_SECONDS,
            )

        self._database.write(write, durable=False)

    def withdraw(self, runner: str) -> None:
        """Forget a runner's announcement."""
        self._database.write(lambda session: session.execute("DELETE FROM runners WHERE name = :name", name=runner))

    def announcements(self) -> Sequence[Announcement]:
        """Return the announcements that hold, by the runners' names."""

        def read(session: Session) -> Sequence[Mapping[str, Any]]:
            return session.rows("SELECT * FROM runners WHERE alive_until > :now ORDER BY name", now=uptime(session))

        return [
            Announcement(
                runner=row["name"],
                pool=row["pool"],
                models=json.loads(row["models"]),
                description=json.loads(row["description"]),
            )
            for row in self._database.read(read)
        ]

    def preferences(self, owner: str, kind: str) -> dict[str, Any]:
        """Return an owner's preferences of a kind; empty if there are none."""
        return self._database.read(lambda session: _preferences(session, owner, kind))

    def prefer(self, owner: str, kind: str, values: JsonObject) -> None:
        """Set some preferences of an owner; the others stay. Raises: InvalidRequest: they are too large."""

        def write(session: Session) -> None:
            # Others who change them wait here, so that no change is lost.
            session.execute("INSERT INTO owners VALUES (:owner) ON CONFLICT (owner) DO NOTHING", owner=owner)
            session.rows("SELECT owner FROM owners WHERE owner = :owner $for_update", owner=owner)
            merged = {**_preferences(session, owner, kind), **values}
            session.execute(
                "INSERT INTO preferences VALUES (:owner, :kind, :body)"
                " ON CONFLICT (owner, kind) DO UPDATE SET body = excluded.body",
                owner=owner,
                kind=kind,
                body=to_json(kind, merged, _MAX_PREFERENCES_BYTES),
            )

        self._database.write(write)


def _preferences(session: Session, owner: str, kind: str) -> dict[str, Any]:
    rows = session.rows("SELECT body FROM preferences WHERE owner = :owner AND kind = :kind", owner=owner, kind=kind)
    return dict(json.loads(rows[0]["body"])) if rows else {}
