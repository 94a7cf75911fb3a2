"""A whole service to measure: Triton, a runner, a gateway with users, and a database."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import MODEL_REPOSITORY, Endpoints, free_port, servers
from benchmarks.service_calls import GatewayClient
from tests.postgres_server import PostgresServer
from triton_diffusers.gateway.access.caller import Role
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.sql_store import SqlJobStore
from triton_diffusers.gateway.jobs.stores import open_store

# By words of their commands; all are children of the launcher.
PROCESSES = {
    "runner": "triton_diffusers runner",
    "gateway": "triton_diffusers gateway",
    "tritonserver": "bin/tritonserver",
    "engine": "triton_diffusers.engine_process",
}
DATABASE = "database"
KINDS = (*PROCESSES, DATABASE)
_TICK_SECONDS = 0.05
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running service: its servers, its clients' side, its database and its folder."""

    triton: Endpoints
    client: GatewayClient
    database: str
    folder: Path
    server: PostgresServer | None
    seconds: float

    def kill(self, kind: str) -> float:
        """Kill a process of a kind, and return when (``time.monotonic``); a database is started again."""
        if kind == DATABASE:
            assert self.server is not None
            self.server.kill()
            struck = time.monotonic()
            self.server.start()
            return struck
        give_up = time.monotonic() + self.seconds
        command = ("pgrep", "--parent", str(self.triton.pid), "--full", PROCESSES[kind])
        while time.monotonic() < give_up:
            for found in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(found), signal.SIGKILL)
                    return time.monotonic()
            time.sleep(_TICK_SECONDS)
        raise TimeoutError(f"the service has no {kind}")

    def images(self) -> Mapping[str, Sequence[str]]:
        """Return the hashes of all stored images, by the ids of their jobs."""
        found = defaultdict(list)
        for path in (self.folder / "results").rglob("*.png"):
            if name := _UUID.search(path.stem):
                found[name[0]].append(hashlib.sha256(path.read_bytes()).hexdigest())
        return found


@contextlib.contextmanager
def service(
    model_dir: Path,
    owners: Sequence[str],
    *,
    postgresql: bool,
    seconds: float,
    settings: Mapping[str, str] | None = None,
    watch: bool = True,
) -> Iterator[Stack]:
    """Start a service with users; no call may take longer than ``seconds``. ``watch``: see ``servers``."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triton-diffusers-service-")))
        server = None
        database = f"sqlite:///{folder / 'jobs.sqlite'}"
        if postgresql:
            server = PostgresServer()
            stack.callback(server.close)
            database = server.new_schema()
        keys = _add_users(database, owners)
        port = free_port()
        environment = {
            "TRITON_DIFFUSERS_GATEWAY_DATABASE": database,
            "TRITON_DIFFUSERS_STORE": str(folder / "results"),
            **(settings or {}),
        }
        started = servers({"ours": MODEL_REPOSITORY}, model_dir, environment, gateway_port=port, watch=watch)
        triton = stack.enter_context(started)["ours"]
        client = GatewayClient(f"http://127.0.0.1:{port}", seconds, keys)
        client.wait_until_ready()
        yield Stack(triton=triton, client=client, database=database, folder=folder, server=server, seconds=seconds)


def _add_users(database: str, owners: Sequence[str]) -> Mapping[str, str]:
    """Return the keys of new users, of whom the first one is an administrator."""
    store = open_store(database, JobTableSettings())
    try:
        assert isinstance(store, SqlJobStore)
        access = AccessStore(store.database)
        keys = {}
        for number, owner in enumerate(owners):
            access.add_user(owner, role=Role.USER if number else Role.ADMIN, actor="benchmark")
            keys[owner] = access.add_key(owner, actor="benchmark").secret
        return keys
    finally:
        store.close()
