"""A PostgreSQL server of the tests' own, in a temporary folder, reachable by a Unix socket only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

_USER = "postgres"
_SETTINGS = ("listen_addresses=", "fsync=off", "shared_buffers=32MB", "max_connections=200", "log_min_messages=fatal")
_START_SECONDS = 60.0
# A test run that is killed closes the pipe, and so ends its server.
_GUARD = '"$@" & server=$!; echo $server; read -r line; kill -QUIT $server; wait $server'


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL; fail the test if there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if path is None:
        pytest.fail(f"{name} was not found: install PostgreSQL (Debian: apt-get install postgresql)")
    return path


class PostgresServer:
    """A server with an empty database. As root it runs as the user ``postgres``, since it refuses to be root."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="td-postgres-"))
        self._data = self._folder / "data"
        self._user = _USER if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._schemas = count()
        self._run(_program("initdb"), "-D", str(self._data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self._guard, self._pid = self._spawn()
        self._wait_until_ready()

    def start(self) -> None:
        """Start the server again after ``kill``."""
        self._guard, self._pid = self._spawn()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if time.monotonic() > give_up:
                    pytest.fail(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
                # Processes of a server that was killed need a moment to end, and it does not start before.
                if self._has_ended():
                    self._end(signal.SIGKILL)
                    self._guard, self._pid = self._spawn()
            else:
                return

    def _spawn(self) -> tuple[subprocess.Popen[str], int]:
        """Return a new server's guard and process number."""
        options = [part for setting in _SETTINGS for part in ("-c", setting)]
        command = [_program("postgres"), "-D", str(self._data), "-k", str(self._folder), *options]
        with (self._folder / "log").open("ab") as log:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", *command],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert guard.stdout is not None
        return guard, int(guard.stdout.readline())

    def _has_ended(self) -> bool:
        try:
            return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    def url(self, schema: str = "public") -> str:
        """Return a URL by which connections use one schema."""
        host = quote(str(self._folder), safe="")
        return f"postgresql://{_USER}@/postgres?host={host}&options=-csearch_path%3D{schema}"

    def new_schema(self) -> str:
        """Return the URL of a new, empty schema."""
        name = f"table_{next(self._schemas)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return self.url(name)

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop the server and delete its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, how)
        self._guard.communicate(timeout=30)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
