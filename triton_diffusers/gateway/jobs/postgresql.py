"""PostgreSQL as the job table's database, for gateways and runners on any number of machines."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from triton_diffusers.gateway.jobs.database import Dialect, Row, Session
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.listeners import Listeners
from triton_diffusers.gateway.jobs.schema import migrate
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHANNEL = "triton_diffusers_jobs"
_MIGRATION_LOCK = 0x7464_6A6F
_MAX_CONNECTIONS = 8
_MAX_ATTEMPTS = 5
_CONNECT_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 5.0

# Statements that are sent together take one round trip.
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_WRITE_NOT_DURABLE = f"{_WRITE}; SET LOCAL synchronous_commit TO off"
_NOTIFY_AND_COMMIT = f"NOTIFY {_CHANNEL}; COMMIT"

_DIALECT = Dialect(
    tokens={
        "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "bytes": "BYTEA",
        "greatest": "greatest",
        "least": "least",
        "trunc": "trunc",
        "for_update": "FOR UPDATE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        "forbid_ledger_updates": "CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RAISE EXCEPTION ''the ledger is append-only''; END'",
        "forbid_ledger_deletes": "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON ledger"
        " FOR EACH ROW EXECUTE FUNCTION forbid()",
    },
    list_test="= ANY({})",
    parameter="%({})s",
)


class _PostgresSession:
    """A transaction of a connection."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]], clock: str) -> None:
        self._connection = connection
        self._clock = clock
        self._now: float | None = None

    def rows(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        return self._execute(statement, parameters).fetchall()

    def execute(self, statement: str, /, **parameters: Any) -> int:
        return self._execute(statement, parameters).rowcount

    def now(self) -> float:
        if self._now is None:
            (row,) = self._connection.execute(f"SELECT {self._clock} AS now").fetchall()
            self._now = float(row["now"])
        return self._now

    def _execute(self, statement: str, parameters: dict[str, Any]) -> psycopg.Cursor[dict[str, Any]]:
        values = {
            name: list(value) if isinstance(value, tuple | set | frozenset) else value
            for name, value in parameters.items()
        }
        return self._connection.execute(_DIALECT.render(statement), values)


class PostgresDatabase:
    """A database (or a schema of one, by ``options`` in the URL) that holds the table, made if it does not exist."""

    def __init__(self, url: str) -> None:
        self.clock = "extract(epoch FROM clock_timestamp())"
        self._url = url
        self._pool = ConnectionPool(
            url,
            connection_class=psycopg.Connection[dict[str, Any]],
            kwargs={"row_factory": dict_row, "connect_timeout": int(_CONNECT_SECONDS), "autocommit": True},
            min_size=1,
            max_size=_MAX_CONNECTIONS,
            timeout=_CONNECT_SECONDS,
            # A connection that the server has closed is replaced before it is used.
            check=_check,
            name="job-table",
            open=True,
        )
        self._listeners = Listeners(self._watch)
        try:
            self.write(_migrate_alone)
        except BaseException:
            self._pool.close()
            raise

    def read(self, work: Callable[[Session], T]) -> T:
        with self._transaction(_READ) as connection:
            return work(_PostgresSession(connection, self.clock))

    def write(self, work: Callable[[Session], T], *, durable: bool = True) -> T:
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                with self._transaction(_WRITE if durable else _WRITE_NOT_DURABLE) as connection:
                    result = work(_PostgresSession(connection, self.clock))
                    connection.execute(_NOTIFY_AND_COMMIT)
                break
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if attempt == _MAX_ATTEMPTS:
                    raise TableUnavailable(f"the job table's database: {error}") from error
        self._listeners.notify()
        return result

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        return self._listeners.add(listener)

    def close(self) -> None:
        self._listeners.close()
        self._pool.close()

    @contextmanager
    def _transaction(self, begin: LiteralString) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """Lend a connection with a transaction, which ends with the context: it is undone if an error is raised."""
        try:
            with self._pool.connection() as connection:
                connection.execute(begin)
                yield connection
        except (errors.DeadlockDetected, errors.SerializationFailure):
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            raise TableUnavailable(f"the job table's database cannot be used: {error}") from error

    def _watch(self, stopped: threading.Event) -> None:
        """Notify the listeners of other processes' commits."""
        failures = 0
        while not stopped.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=int(_CONNECT_SECONDS)) as connection:
                    connection.execute(f"LISTEN {_CHANNEL}")
                    failures = 0
                    # Changes may have been missed while there was no connection.
                    self._listeners.notify()
                    while not stopped.is_set():
                        for _ in connection.notifies(timeout=0.5, stop_after=1):
                            self._listeners.notify()
            except psycopg.Error as error:
                logger.warning("job table: notifications: %s", error)
                stopped.wait(backoff(failures, first=0.2, longest=_MAX_PAUSE_SECONDS, jitter=True))
                failures += 1


def _check(connection: psycopg.Connection[Any]) -> None:
    """Raise psycopg.OperationalError if the server has closed a connection, without a round trip for each that is good.

    An idle connection receives nothing but its end, or notices.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        ConnectionPool.check_connection(connection)


def _migrate_alone(session: Session) -> None:
    session.rows("SELECT pg_advisory_xact_lock(:lock)", lock=_MIGRATION_LOCK)
    migrate(session)
