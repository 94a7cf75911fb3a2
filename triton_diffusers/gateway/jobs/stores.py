"""Opening a job store by its URL."""

from __future__ import annotations

from pathlib import Path

from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.sql_store import SqlJobStore
from triton_diffusers.gateway.jobs.sqlite import SqliteDatabase

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")


def open_store(url: str, settings: JobTableSettings) -> JobStore:
    """Open the job table of a database, and make it if it does not exist.

    ``url`` is ``sqlite:///path`` (``sqlite:////absolute/path``), or one of libpq such as ``postgresql://host/database``.

    Raises: ValueError: the URL is invalid. TableUnavailable: the database cannot be opened.
    """
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return SqlJobStore(SqliteDatabase(Path(url.removeprefix(_SQLITE))), settings)
    if url.startswith(_POSTGRESQL):
        try:
            from triton_diffusers.gateway.jobs.postgresql import PostgresDatabase
        except ImportError as error:
            raise ValueError(
                f"database: PostgreSQL needs the package's extra: pip install 'triton-diffusers[postgres]' ({error})"
            ) from error
        return SqlJobStore(PostgresDatabase(url), settings)
    raise ValueError(f"database: {url.split('@')[-1]!r} is invalid: expected sqlite:///path or postgresql://…")
