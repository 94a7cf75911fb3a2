"""Every statement of the store finds its rows by an index, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.unit.gateway.jobs.tables import BILL, RESULT, Table, new_job
from triton_diffusers.gateway.jobs import postgresql, sqlite
from triton_diffusers.gateway.jobs.bounds import Bounds
from triton_diffusers.gateway.jobs.job import Blob, JobError, JobState, NewWebhook, Progress, Report
from triton_diffusers.gateway.jobs.sink import SinkStore
from triton_diffusers.gateway.jobs.webhook import Outbox

# All tables but those that have one row, or one for each pool. (A plan of SQLite also has names of subqueries.)
_LARGE = {"jobs", "requests", "results", "inputs", "previews", "events", "owners", "accounts", "ledger", "keys"} | {
    "idempotency_keys",
    "usage_days",
    "sink_entries",
    "sink_deliveries",
    "sink_consumers",
    "webhooks",
    "others",
}
_HOOK = NewWebhook(url="https://a.example", host="a.example", events=[JobState.SUCCEEDED, JobState.FAILED])
_SCANNED = re.compile(r"\bSCAN (\w+)\b(?! USING)|Seq Scan on (\w+)")


def _use(table: Table) -> None:
    """Call every method of the store."""
    store = table.store
    inputs = {"image": Blob(data=b"x")}
    for of in ("user:ann", "team:t", "key:k"):
        store.set_bounds(of, Bounds(per_minute=1e9, per_day=1e9))
        store.bounds_use(of)
    many = {"inputs": inputs, "label": "l", "sink": "s", "team": "t", "key_id": "k", "webhook": _HOOK}
    (first, second, third, *_) = store.submit("ann", [new_job(**many) for _ in range(5)])
    store.submit("bob", [new_job(idempotency_key="k", fingerprint="f", waiting=True, max_wait_seconds=99.0)])
    store.submit("bob", [new_job(fingerprint="f", waiting=True)])
    store.position("ann", second.job.id)
    leases = [claim.lease for claim in table.claim(4)]
    store.want_preview(None, leases[0].job_id)
    preview = Blob(data=b"y")
    store.renew([Report(lease=lease, progress=Progress(step=1, steps=2), preview=preview) for lease in leases])
    store.preview(None, leases[0].job_id)
    store.inputs(first.job.id)
    store.events("ann", first.job.id)
    store.event_numbers([first.job.id])
    store.finish(leases[0], RESULT, BILL)
    store.fail(leases[1], JobError(message="x"), retryable=True)
    store.release(leases[2:3])
    store.forget_runner("runner")
    store.cancel("ann", third.job.id)
    store.leave(third.job.id, 1.0)
    store.jobs("ann", states=[JobState.QUEUED], label="l", cursor=100)
    store.jobs("ann", label="l")
    store.jobs(None)
    store.in_flight("ann", "s")
    store.counters("ann")
    store.load()
    store.usage("ann", 0, 10**6)
    store.usage(None, 0, 10**6)
    store.ledger("ann")
    store.ledger(None)
    for _ in range(3):
        for claim in table.claim(9):
            store.fail(claim.lease, JobError(message="x"), retryable=True)
    dead = store.jobs(None, states=[JobState.DEAD]).jobs[0]
    store.rerun(None, dead.id)
    _use_sink(store.sinks)
    _use_outbox(store.outbox)
    table.pass_time(40.0)
    store.expired_results()
    store.drop_results([first.job.id])
    store.delete("ann", third.job.id)
    table.pass_time(8.0)


def _use_outbox(outbox: Outbox) -> None:
    (first,) = outbox.claim(1, 30.0, ["other.example"], ["other"])
    outbox.retry(first, 0.0, 500, "x")
    (again,) = outbox.claim(1, 30.0)
    outbox.delivered(again, 200)
    outbox.redeliver("ann", again.job_id)
    (last,) = outbox.claim(1, 30.0)
    outbox.give_up(last, 410, "x")


def _use_sink(sinks: SinkStore) -> None:
    consumer = sinks.connect("s", "g", "c", 2)
    (first, *_) = sinks.take(consumer, tags={})
    sinks.reject("s", "g", [first.number])
    sinks.take(consumer)
    sinks.commit("s", "g", [first.number])
    sinks.search("s", "g", 2)
    sinks.attributes("s")
    sinks.read("s", job_id="x")
    sinks.read("s", delete=True)
    sinks.truncate("s", 1)
    sinks.disconnect(consumer)


def _record(monkeypatch: pytest.MonkeyPatch, session: type) -> dict[str, dict[str, Any]]:
    """Return the statements that sessions execute from now on, with their parameters."""
    seen: dict[str, dict[str, Any]] = {}
    execute = session._execute

    def recorded(self: Any, statement: str, parameters: dict[str, Any]) -> Any:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", statement):
            seen[statement] = parameters
        return execute(self, statement, parameters)

    monkeypatch.setattr(session, "_execute", recorded)
    return seen


def _scanned_tables(plan: str) -> set[str]:
    return {one or other for one, other in _SCANNED.findall(plan)}


_KEPT = {"result_retention_seconds": 20.0, "job_retention_seconds": 1.0, "input_retention_seconds": 1.0}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_scans_no_table(open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(**_KEPT, idempotency_seconds=10.0)
    seen = _record(monkeypatch, sqlite._SqliteSession)
    _use(table)
    assert len(seen) > 80
    for statement, parameters in list(seen.items()):
        rows = table.store.database.read(lambda s, q=statement, p=parameters: s.rows(f"EXPLAIN QUERY PLAN {q}", **p))
        plan = "\n".join(row["detail"] for row in rows)
        assert not (_scanned_tables(plan) & _LARGE), f"{statement}\n{plan}"


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_scans_no_table(open_table: Callable[..., Table], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(**_KEPT, idempotency_seconds=10.0)
    seen = _record(monkeypatch, postgresql._PostgresSession)
    _use(table)
    assert len(seen) > 80
    with psycopg.connect(url, autocommit=True) as connection:
        # Small tables are scanned whatever their indices; this asks whether there is an index to be used.
        connection.execute("SET enable_seqscan = off")
        for statement, parameters in list(seen.items()):
            values = {name: list(v) if isinstance(v, tuple | set) else v for name, v in parameters.items()}
            rows = connection.execute(f"EXPLAIN {postgresql._DIALECT.render(statement)}", values).fetchall()
            plan = "\n".join(row[0] for row in rows)
            assert not (_scanned_tables(plan) & _LARGE), f"{statement}\n{plan}"


def test_scans_are_seen_in_plans() -> None:
    assert _scanned_tables("SCAN jobs") == _scanned_tables("  ->  Seq Scan on jobs  (cost=0..1)") == {"jobs"}
    assert _scanned_tables("SCAN jobs USING INDEX jobs_owner") == set()
