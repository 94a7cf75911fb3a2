"""Accepting and listing jobs, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import BILL, RESULT, Table, new_job
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.errors import JobNotFound, KeyReused, TooManyJobs
from triton_diffusers.gateway.jobs.job import Blob, JobState, OwnerLimits
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store


def test_idempotency_key_names_one_job_until_it_is_forgotten(table: Table) -> None:
    key = {"idempotency_key": "k", "fingerprint": "f"}
    job = table.submit(**key)
    (again,) = table.store.submit("ann", [new_job(**key)])
    assert (again.job.id, again.created) == (job.id, False)
    assert table.submit("bob", **key).id != job.id, "a key is its owner's"
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    assert table.submit(**key).id == job.id
    with pytest.raises(KeyReused, match=r"Idempotency-Key: 'k' is invalid: was already used for another request"):
        table.submit(idempotency_key="k", fingerprint="g")
    table.store.delete("ann", job.id)
    assert table.submit(**key).id != job.id


def test_idempotency_keys_are_forgotten_in_time(open_table: Callable[..., Table]) -> None:
    table = open_table(idempotency_seconds=10.0)
    job = table.submit(idempotency_key="k")
    table.pass_time(16.0)
    assert table.submit(idempotency_key="k").id != job.id


def test_identical_job_in_flight_is_joined(table: Table) -> None:
    job = table.submit(fingerprint="f")
    assert table.submit(fingerprint="f").id == job.id
    assert table.submit("bob", fingerprint="f").id != job.id
    assert table.submit(fingerprint="g").id != job.id
    assert table.submit().id != table.submit().id
    claim = table.claim_one()
    assert claim.job.id == job.id
    assert table.submit(fingerprint="f").id == job.id
    table.store.cancel("ann", job.id)
    assert table.submit(fingerprint="f").id != job.id, "a cancelled job is not joined"


def test_batch_is_accepted_as_a_whole(table: Table) -> None:
    submitted = table.store.submit("ann", [new_job(label=str(n)) for n in range(5)])
    assert [item.job.label for item in submitted] == list("01234")
    assert [item.job.number for item in submitted] == sorted(item.job.number for item in submitted)
    for broken in (new_job(work=float("nan")), new_job(request={"x": float("inf")}), new_job(label="a\0b")):
        with pytest.raises(InvalidRequest):
            table.store.submit("ann", [new_job(), broken])
    assert table.store.counters("ann").queued == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "a\0b"}, "label: 'a\\x00b' is invalid: must be at most 1000 characters"),
        ({"label": "\ud800"}, "label: "),
        ({"model": "x" * 1001}, "model: "),
        ({"tags": {"a": "\0"}}, "tags.a: "),
        ({"work": -1.0}, "work: -1.0 is invalid: must be a number of at least 0"),
        ({"weight": 0.0}, "weight: 0.0 is invalid: must be a number above 0"),
        ({"priority": 10**7}, "priority: 10000000 is invalid: must be between"),
        ({"images": 0}, "images: 0 is invalid: must be at least 1"),
        ({"max_wait_seconds": float("nan")}, "max_wait_seconds: nan is invalid: must be a number of at least 0"),
        ({"request": {"a": {1, 2}}}, "request: '…' is invalid: cannot be written as JSON"),
        ({"request": {"a": "x" * 1_000_000}}, "request: '…' is invalid: must have at most 1000000 bytes as JSON"),
        ({"inputs": {"a": Blob(data=bytes(64_000_001))}}, "inputs: '…' is invalid: must have at most 64000000 bytes"),
    ],
)
def test_job_that_cannot_be_kept_is_refused(table: Table, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        table.submit(**fields)
    assert str(raised.value).startswith(message)
    assert table.store.jobs(None).jobs == []


def test_limits_are_of_what_is_in_flight(table: Table) -> None:
    limits = OwnerLimits(max_jobs=2, max_work=10.0)
    table.store.submit("ann", [new_job(work=4.0, fingerprint="f"), new_job(work=4.0)], limits)
    with pytest.raises(TooManyJobs, match="there would be 3 jobs in flight; the limit is 2"):
        table.store.submit("ann", [new_job(work=1.0)], limits)
    assert table.store.submit("ann", [new_job(fingerprint="f")], limits)[0].created is False
    table.store.submit("bob", [new_job()], limits)
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    with pytest.raises(TooManyJobs, match=r"there would be work of 10\.5 in flight; the limit is 10"):
        table.store.submit("ann", [new_job(work=6.5)], limits)
    table.store.submit("ann", [new_job(work=6.0)], limits)


def test_concurrent_submissions_with_one_key_make_one_job(open_table: Callable[..., Table]) -> None:
    tables = [open_table() for _ in range(4)]
    start = threading.Barrier(8)

    def submit(number: int) -> tuple[str, str]:
        start.wait()
        table = tables[number % 4]
        return table.submit(idempotency_key="k").id, table.submit(fingerprint="f").id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(submit, range(8)))
    assert len({key for key, _ in ids}) == len({joined for _, joined in ids}) == 1


def test_jobs_are_listed_by_pages(table: Table) -> None:
    jobs = [table.submit("ann", label="even" if number % 2 == 0 else "odd") for number in range(7)]
    table.submit("bob")
    table.store.cancel("ann", jobs[3].id)
    seen, cursor = [], None
    while True:
        page = table.store.jobs("ann", cursor=cursor, limit=3)
        seen += [job.id for job in page.jobs]
        if (cursor := page.cursor) is None:
            break
    assert seen == [job.id for job in reversed(jobs)]
    assert [job.id for job in table.store.jobs("ann", states=[JobState.CANCELLED]).jobs] == [jobs[3].id]
    assert [job.id for job in table.store.jobs("ann", label="odd").jobs] == [jobs[n].id for n in (5, 3, 1)]
    assert len(table.store.jobs(None).jobs) == 8
    assert table.store.jobs("nobody").jobs == []
    assert [job.id for job in table.store.get_many([jobs[2].id, jobs[0].id, "unknown"])] == [jobs[0].id, jobs[2].id]


def test_other_owners_jobs_do_not_exist(table: Table) -> None:
    job = table.submit("ann")
    store = table.store
    for method in (store.get, store.cancel, store.rerun, store.delete, store.events, store.preview, store.position):
        for owner, job_id in (("bob", job.id), ("ann", "unknown"), (None, "a\0"), ("ann", "\ud800")):
            with pytest.raises(JobNotFound):
                method(owner, job_id)
    with pytest.raises(JobNotFound):
        store.want_preview("bob", job.id)
    assert store.get(None, job.id) == store.get("ann", job.id) == job


def test_other_owners_jobs_take_the_work_of_unknown_ones(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    job = table.submit("ann", request={"prompt": "x" * 100_000})
    seen: list[tuple[str, int]] = []
    session = type(table.store.database.read(lambda session: session))
    rows = session.rows

    def counted(self: Any, statement: str, /, **parameters: Any) -> Any:
        found = rows(self, statement, **parameters)
        seen.append((statement, len(found)))
        return found

    monkeypatch.setattr(session, "rows", counted)
    store = table.store
    calls = (store.get, store.cancel, store.rerun, store.delete, store.events, store.preview, store.position)
    for method in (*calls, store.want_preview):
        traces = []
        for job_id in (job.id, "unknown"):
            seen.clear()
            with pytest.raises(JobNotFound):
                method("bob", job_id)
            traces.append(list(seen))
        assert traces[0] == traces[1] != []
        assert all(number == 0 for _, number in traces[0])


def test_inputs_are_kept_beside_the_job_until_their_retention_is_over(open_table: Callable[..., Table]) -> None:
    table = open_table(input_retention_seconds=20.0)
    inputs = {"image": Blob(data=bytes(range(256)), media_type="image/png"), "mask": Blob(data=b"")}
    job = table.submit(inputs=inputs)
    assert table.store.inputs(job.id) == inputs
    table.pass_time(60.0)
    assert table.store.inputs(job.id) == inputs
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    table.pass_time(16.0)
    assert table.store.inputs(job.id) == inputs
    table.pass_time(8.0)
    assert table.store.inputs(job.id) == {}
    assert table.store.get("ann", job.id).result == RESULT


def test_results_and_rows_are_deleted_in_time(open_table: Callable[..., Table]) -> None:
    table = open_table(result_retention_seconds=20.0, job_retention_seconds=20.0)
    job, cancelled, waiting = table.submit(), table.submit(), table.submit()
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    table.store.cancel("ann", cancelled.id)
    assert table.store.expired_results() == []
    table.pass_time(24.0)
    assert [expired.id for expired in table.store.expired_results()] == [job.id]
    table.pass_time(60.0)
    assert table.store.get("ann", job.id).result == RESULT, "the row waits until its images are deleted"
    with pytest.raises(JobNotFound):
        table.store.get("ann", cancelled.id)
    table.store.drop_results([job.id, waiting.id, "unknown"])
    assert (table.store.expired_results(), table.store.get("ann", job.id).result) == ([], None)
    table.pass_time(4.0)
    assert [left.id for left in table.store.jobs(None).jobs] == [waiting.id]
    assert [entry.job_id for entry in table.store.ledger(None)] == [job.id]


def test_ledger_is_append_only(table: Table) -> None:
    table.submit()
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    for statement in ("DELETE FROM ledger", "UPDATE ledger SET work = 0"):
        with pytest.raises(Exception, match="append-only"):
            table.store.database.write(lambda session, statement=statement: session.execute(statement))
    assert len(table.store.ledger(None)) == 1


def test_ledger_is_read_by_pages(table: Table) -> None:
    for owner in ("ann", "bob", "ann"):
        table.submit(owner)
        table.store.finish(table.claim_one().lease, RESULT, BILL)
    assert [entry.number for entry in table.store.ledger("ann")] == [1, 3]
    assert [entry.number for entry in table.store.ledger(None, after=1, limit=1)] == [2]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "mysql://x", "/a/file"], indirect=False)
def test_unknown_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is invalid: expected sqlite:///path or postgresql://"):
        open_store(url, JobTableSettings())
