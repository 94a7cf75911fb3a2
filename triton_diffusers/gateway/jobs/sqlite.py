"""SQLite as the job table's database: one file, for the processes of one machine."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, TypeVar

from triton_diffusers.gateway.jobs.database import Dialect, Row, Session
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.listeners import Listeners
from triton_diffusers.gateway.jobs.schema import migrate

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 20.0
_WATCH_SECONDS = 0.01

_DIALECT = Dialect(
    tokens={
        "serial": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "bytes": "BLOB",
        "greatest": "max",
        "least": "min",
        "trunc": "",
        # A transaction that writes has the whole file.
        "for_update": "",
        "skip_locked": "",
        "forbid_ledger_updates": "CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger"
        " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
        "forbid_ledger_deletes": "CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger"
        " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    },
    list_test="IN (SELECT value FROM json_each({}))",
    parameter=":{}",
)


class _SqliteSession:
    """A transaction of a connection."""

    def __init__(self, connection: sqlite3.Connection, clock: str) -> None:
        self._connection = connection
        self._clock = clock
        self._now: float | None = None

    def rows(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        return [dict(row) for row in self._execute(statement, parameters)]

    def execute(self, statement: str, /, **parameters: Any) -> int:
        return self._execute(statement, parameters).rowcount

    def now(self) -> float:
        if self._now is None:
            self._now = float(self._connection.execute(f"SELECT {self._clock}").fetchone()[0])
        return self._now

    def _execute(self, statement: str, parameters: dict[str, Any]) -> sqlite3.Cursor:
        values = {
            name: json.dumps(list(value)) if isinstance(value, list | tuple | set | frozenset) else value
            for name, value in parameters.items()
        }
        return self._connection.execute(_DIALECT.render(statement), values)


class SqliteDatabase:
    """A database file in WAL mode, made if it does not exist. Not for network file systems.

    Writers take turns. They ask for the file's lock each millisecond instead of waiting as SQLite does, whose pauses of
    up to 0.1 s let a busy process starve another one.
    """

    def __init__(self, path: Path) -> None:
        self.clock = "(julianday('now') - 2440587.5) * 86400.0"
        self._path = path
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._listeners = Listeners(self._watch)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _reported():
            path.touch(mode=0o600)
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        self.write(migrate)

    def read(self, work: Callable[[Session], T]) -> T:
        with _reported():
            try:
                connection = self._readers.get_nowait()
            except Empty:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                return work(_SqliteSession(connection, self.clock))
            finally:
                if _rolled_back(connection):
                    self._readers.put(connection)

    def write(self, work: Callable[[Session], T], *, durable: bool = True) -> T:
        with self._transaction(durable) as connection:
            result = work(_SqliteSession(connection, self.clock))
        self._listeners.notify()
        return result

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        return self._listeners.add(listener)

    def close(self) -> None:
        self._listeners.close()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        with suppress(Empty):
            while True:
                self._readers.get_nowait().close()

    @contextmanager
    def _transaction(self, durable: bool) -> Iterator[sqlite3.Connection]:
        if not self._writing.acquire(timeout=_BUSY_SECONDS):
            raise TableUnavailable("the job table's file is busy")
        try:
            with _reported():
                if self._writer is None:
                    self._writer = self._connect()
                    self._writer.execute("PRAGMA busy_timeout = 0")
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                _begin(self._writer)
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                finally:
                    if not _rolled_back(self._writer):
                        self._writer = None
        finally:
            self._writing.release()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _watch(self, stopped: threading.Event) -> None:
        """Notify the listeners of other processes' commits."""
        with closing(self._connect()) as connection:
            seen = None
            while not stopped.wait(_WATCH_SECONDS):
                try:
                    (version,) = connection.execute("PRAGMA data_version").fetchone()
                except sqlite3.Error as error:
                    logger.warning("job table: %s", error)
                    continue
                if seen is not None and version != seen:
                    self._listeners.notify()
                seen = version


def _begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, as soon as no other process does."""
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(0.0005, 0.0015))  # noqa: S311  # not a secret
        else:
            return


def _rolled_back(connection: sqlite3.Connection) -> bool:
    """Return True after ending a transaction that is still open; a connection that cannot do so is closed."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.close()
        return False
    return True


@contextmanager
def _reported() -> Iterator[None]:
    """Raise the database's failures as TableUnavailable, and mistakes in statements as they are."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        raise TableUnavailable(f"the job table's file cannot be used: {error}") from error
