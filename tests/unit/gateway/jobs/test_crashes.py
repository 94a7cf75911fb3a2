"""Processes and databases that are killed lose nothing that was acknowledged."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, new_job
from tests.waiting import WITHIN, until
from triton_diffusers.gateway.jobs import postgresql, schema
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

ROOT = Path(__file__).parents[4]


class Worker:
    """A worker process and the lines that it has printed."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.lines: list[list[str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.gateway.jobs.worker", name, url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.split())

    def wait_for(self, kind: str, count: int) -> None:
        """Wait until it has printed so many lines of a kind."""

        def has_printed() -> bool:
            assert self.process.poll() is None, self.lines[-3:]
            return len(self.said(kind)) >= count

        until(has_printed)

    def said(self, kind: str) -> list[str]:
        """Return what it has printed of a kind."""
        return [words[1] for words in list(self.lines) if len(words) == 2 and words[0] == kind]

    def kill(self) -> None:
        """Kill it in the middle of its work."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


@pytest.fixture
def start(url: str) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def start_one(name: str) -> Worker:
        workers.append(Worker(name, url))
        return workers[-1]

    yield start_one
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


def _check(store: JobStore, workers: list[Worker]) -> None:
    """Finish what is left, and check that nothing was lost or done twice."""
    for worker in workers:
        store.forget_runner(worker.name)
    while claims := store.claim("last", "default", [MODEL], 50):
        for claim in claims:
            store.finish(claim.lease, RESULT, BILL)
    accepted = [job_id for worker in workers for job_id in worker.said("accepted")]
    finished = [job_id for worker in workers for job_id in worker.said("finished")]
    assert len(finished) == len(set(finished))
    jobs = {job.id: job for job in store.get_many([*accepted, *finished])}
    assert jobs.keys() == {*accepted, *finished}, "acknowledged jobs were lost"
    assert all(job.state == JobState.SUCCEEDED for job in jobs.values())
    bills: list[str] = []
    while entries := store.ledger(None, after=len(bills)):
        bills += [entry.job_id for entry in entries]
    assert len(bills) == len(set(bills))
    assert jobs.keys() <= set(bills)


def test_killed_processes_lose_no_job(url: str, start: Callable[[str], Worker]) -> None:
    workers = []
    for number in range(4):
        worker = start(f"w{number}")
        workers.append(worker)
        worker.wait_for("finished", 5)
        if number % 2:
            for victim in workers[-2:]:
                victim.kill()
    store = open_store(url, JobTableSettings())
    _check(store, workers)
    if url.startswith("sqlite"):
        rows = store.database.read(lambda session: session.rows("PRAGMA integrity_check"))
        assert [row["integrity_check"] for row in rows] == ["ok"]
    store.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_CONNECT_SECONDS", 2.0)


@pytest.mark.usefixtures("_impatient")
def test_killed_database_loses_no_job() -> None:
    server = PostgresServer()
    try:
        url = server.new_schema()
        store = open_store(url, JobTableSettings())
        heard = threading.Event()
        store.subscribe(heard.set)
        worker = Worker("w", url)
        try:
            for _ in range(2):
                worker.wait_for("finished", len(worker.said("finished")) + 5)
                server.kill()
                with pytest.raises(TableUnavailable):
                    store.submit("ann", [new_job()])
                server.start()
                worker.wait_for("finished", len(worker.said("finished")) + 5)
        finally:
            worker.kill()
        heard.clear()
        store.submit("ann", [new_job()])
        assert heard.wait(WITHIN)
        _check(store, [worker])
        store.close()
    finally:
        server.close()


def test_full_disk_is_reported_and_harmless(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'jobs.sqlite'}", JobTableSettings())
    (kept,) = store.submit("ann", [new_job()])
    pages = store.database.write(lambda session: session.rows("PRAGMA page_count"))[0]["page_count"]
    store.database.write(lambda session: session.rows(f"PRAGMA max_page_count = {pages + 2}"))
    with pytest.raises(TableUnavailable, match="full"):
        store.submit("ann", [new_job(request={"prompt": "x" * 100_000})])
    assert [job.id for job in store.jobs("ann").jobs] == [kept.job.id]
    assert store.counters("ann").queued == 1
    store.close()


def test_later_schema_is_refused(url: str) -> None:
    store = open_store(url, JobTableSettings())
    store.database.write(lambda session: session.execute("UPDATE schema_version SET version = 99"))
    store.close()
    with pytest.raises(ValueError, match=r"the job table has schema 99, this version knows \d+: update it"):
        open_store(url, JobTableSettings())


def test_table_of_an_earlier_version_is_migrated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        open_store(url, JobTableSettings()).close()
    for _ in range(2):
        store = open_store(url, JobTableSettings())
        (submitted,) = store.submit("ann", [new_job(sink="s")])
        assert store.get("ann", submitted.job.id) == submitted.job
        store.close()


def test_broken_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(TableUnavailable, match="the job table's file cannot be used: file is not a database"):
        open_store(f"sqlite:///{path}", JobTableSettings())


@pytest.mark.usefixtures("_impatient")
def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TableUnavailable, match="the job table's database cannot be used"):
        open_store(f"postgresql://nobody@/none?host={tmp_path}", JobTableSettings())


def test_connection_that_the_server_has_closed_is_replaced(postgres: PostgresServer) -> None:
    store = open_store(postgres.new_schema(), JobTableSettings())
    (kept,) = store.submit("ann", [new_job()])
    pids = store.database.read(lambda session: session.rows("SELECT pg_backend_pid() AS pid"))
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 60000)", [pids[0]["pid"]])
    assert store.get("ann", kept.job.id) == kept.job
    store.close()
