"""An observer of a job table: a process of its own, which reads the tables without the store."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.unit.gateway.jobs.tables import START

# One statement, so that it sees one state, and since it is asked after each step of each history.
_LOOK = """
    SELECT 1 AS part, jobs.number, id, state, attempts, runner, cancel_requested,
        CASE WHEN results.job IS NULL THEN 0 ELSE 1 END, CASE WHEN ended IS NULL THEN 0 ELSE 1 END
    FROM jobs LEFT JOIN results ON results.job = jobs.number
    UNION ALL SELECT 2, number, job_id, state, 0, '', 0, 0, 0 FROM ledger
    UNION ALL SELECT 3, queued, owner, '', 0, '', 0, 0, 0 FROM accounts WHERE queued != 0
    UNION ALL SELECT 4, number, job_id, '', 0, '', 0, 0, 0 FROM sink_entries
    UNION ALL SELECT 5, job, job_id, '', 0, '', 0, 0, 0 FROM webhooks WHERE state != 'none'
    ORDER BY 1, 2"""
_KEPT = ("schema_version", "counters", "clock")
_RESET = f"UPDATE counters SET value = 0; UPDATE clock SET uptime = 0, ticked_at = {START}"
# To truncate a table takes 3 ms, to delete few rows nearly nothing; but deleted rows add up.
_MAX_DELETIONS = 100


@dataclass(frozen=True)
class Contents:
    """All that a table has: states of jobs by id, bills in order, queued jobs by owner, ids in sinks and the outbox."""

    jobs: Mapping[str, tuple[Any, ...]]
    bills: list[tuple[str, str]]
    queued: Mapping[str, int]
    sink_entries: list[str]
    messages: list[str]


class Observer:
    """A connection to a table's database, for many histories."""

    def __init__(self, url: str) -> None:
        self._connection: Any
        if url.startswith("sqlite:///"):
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        else:
            self._connection = psycopg.connect(url, autocommit=True)
        self._tables: list[str] = []
        self._deletions = 0

    def look(self) -> Contents:
        """Return what is committed."""
        parts = defaultdict(list)
        for part, *row in self._connection.execute(_LOOK).fetchall():
            parts[part].append(row)
        return Contents(
            jobs={row[1]: tuple(row[2:]) for row in parts[1]},
            bills=[(row[1], row[2]) for row in parts[2]],
            queued={row[1]: row[0] for row in parts[3]},
            sink_entries=[row[1] for row in parts[4]],
            messages=[row[1] for row in parts[5]],
        )

    def empty(self) -> None:
        """Empty the table of a PostgreSQL database."""
        if not self._tables:
            rows = self._connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
            self._tables = [name for (name,) in rows if name not in _KEPT]
        if self._deletions % _MAX_DELETIONS == 0:
            self._connection.execute(f"TRUNCATE {', '.join(self._tables)}; {_RESET}")
        else:
            deletions = "; ".join(f"DELETE FROM {table}" for table in self._tables)
            # Triggers keep the ledger from being deleted.
            self._connection.execute(
                f"BEGIN; SET LOCAL session_replication_role = replica; {deletions}; {_RESET}; COMMIT"
            )
        self._deletions += 1

    def close(self) -> None:
        """Close the connection."""
        with suppress(psycopg.Error):
            self._connection.close()
