"""Bounds on work: rates, days, months, what is in flight; on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import RESULT, START, Table, new_job
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.bounds import Bounds, day_of, next_day, next_month, subject
from triton_diffusers.gateway.jobs.errors import BoundReached
from triton_diffusers.gateway.jobs.job import Bill, JobState

ANN, STUDIO, KEY = subject("user", "ann"), subject("team", "studio"), subject("key", "k1")
SUBJECTS = (ANN, STUDIO, KEY)


def submit(table: Table, work: float, **fields: Any) -> Any:
    return table.submit("ann", work=work, team="studio", key_id="k1", **fields)


def draw(table: Table, work: float | None = None) -> None:
    claim = table.claim_one()
    bill = Bill(megapixel_steps=claim.job.work if work is None else work, image_steps=1, engine_seconds=1.0)
    table.store.finish(claim.lease, RESULT, bill)


@pytest.mark.parametrize("bounded", SUBJECTS)
@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("per_minute", "may start 10 megapixel-steps a minute, 4 now; this request needs 5; try again in 6 s"),
        ("per_day", "may use 10 megapixel-steps a day, 6 are used; this request needs 5; try again in"),
        ("per_month", "may use 10 megapixel-steps a month, 6 are used; this request needs 5; try again in"),
        ("in_flight", "may use 10 megapixel-steps at a time, 6 are used; this request needs 5"),
    ],
)
def test_work_above_a_bound_is_refused(table: Table, bounded: str, bound: str, message: str) -> None:
    table.store.set_bounds(bounded, Bounds(**{bound: 10.0}))
    submit(table, 6.0)
    with pytest.raises(BoundReached) as raised:
        submit(table, 5.0)
    assert str(raised.value).startswith(f"the {bounded.partition(':')[0]} {message}")
    assert (raised.value.retry_after is None) == (bound == "in_flight")
    submit(table, 4.0)
    table.submit("bob", work=100.0)
    assert len(table.store.jobs("ann").jobs) == 2


def test_a_day_ends_at_midnight_and_a_month_with_its_last_day(table: Table) -> None:
    table.store.set_bounds(ANN, Bounds(per_day=10.0, per_month=15.0))
    submit(table, 10.0)
    draw(table)
    with pytest.raises(BoundReached) as raised:
        submit(table, 1.0)
    assert raised.value.retry_after == pytest.approx(next_day(START) - START)
    table.step_clock(raised.value.retry_after)
    submit(table, 5.0)
    draw(table)
    with pytest.raises(BoundReached, match="a month, 15 are used") as raised:
        submit(table, 1.0)
    table.step_clock(raised.value.retry_after or 0)
    submit(table, 10.0)


def test_a_batch_is_charged_as_a_whole(table: Table) -> None:
    table.store.set_bounds(STUDIO, Bounds(per_day=10.0))
    with pytest.raises(InvalidRequest, match="work: '12' is invalid"):
        table.store.submit("ann", [new_job(work=4.0, team="studio") for _ in range(3)])
    assert table.store.jobs(None).jobs == []
    table.store.submit("ann", [new_job(work=4.0, team="studio") for _ in range(2)])
    assert table.store.bounds_use(STUDIO).day == 8.0


def test_work_that_is_never_allowed_is_invalid(table: Table) -> None:
    table.store.set_bounds(KEY, Bounds(per_month=10.0))
    with pytest.raises(InvalidRequest, match="work: '11' is invalid: the key may use 10 megapixel-steps a month"):
        submit(table, 11.0)


def test_a_repeat_is_not_charged(table: Table) -> None:
    table.store.set_bounds(ANN, Bounds(per_minute=10.0, per_day=10.0))
    for _ in range(3):
        submit(table, 6.0, idempotency_key="k")
        submit(table, 4.0, fingerprint="f")
    assert table.store.bounds_use(ANN).day == 10.0


def test_a_rate_fills_its_bucket_in_a_minute(table: Table) -> None:
    table.store.set_bounds(ANN, Bounds(per_minute=60.0))
    submit(table, 60.0)
    with pytest.raises(BoundReached, match="0 now; this request needs 10; try again in 10 s"):
        submit(table, 10.0)
    table.step_clock(10.0)
    submit(table, 10.0)
    table.step_clock(1000.0)
    assert table.store.bounds_use(ANN).allowed_now == 60.0
    submit(table, 600.0)  # larger than the bucket: it needs a full one, and leaves a debt
    assert table.store.bounds_use(ANN).allowed_now == -540.0
    with pytest.raises(BoundReached, match="0 now; this request needs 1; try again in 541 s"):
        submit(table, 1.0)
    table.step_clock(-100.0)  # a clock that is set back takes nothing
    assert table.store.bounds_use(ANN).allowed_now == -540.0


def test_a_job_that_does_not_run_costs_nothing(table: Table) -> None:
    for bounded in SUBJECTS:
        table.store.set_bounds(bounded, Bounds(per_minute=10.0, per_day=10.0, per_month=10.0, in_flight=10.0))
    for end in ("cancelled", "expired"):
        job = submit(table, 10.0, max_wait_seconds=1.0)
        if end == "cancelled":
            table.store.cancel("ann", job.id)
        else:
            table.pass_time(4.0)
        assert table.state(job) == end
        for bounded in SUBJECTS:
            use = table.store.bounds_use(bounded)
            assert (use.day, use.month, use.in_flight, use.allowed_now) == (0.0, 0.0, 0.0, 10.0)


def test_the_bill_is_what_counts_in_the_end(table: Table) -> None:
    table.store.set_bounds(ANN, Bounds(per_day=10.0))
    submit(table, 8.0)
    draw(table, work=2.5)
    assert table.store.bounds_use(ANN).day == 2.5
    submit(table, 7.5)


def test_a_dead_job_that_is_queued_again_is_charged_again(open_table: Callable[..., Table]) -> None:
    table = open_table(max_attempts=1)
    table.store.set_bounds(ANN, Bounds(in_flight=10.0))
    job = submit(table, 8.0)
    table.store.forget_runner(table.claim_one().job.runner)
    assert table.state(job) == JobState.DEAD
    other = submit(table, 8.0)
    with pytest.raises(BoundReached):
        table.store.rerun("ann", job.id)
    assert table.state(job) == JobState.DEAD
    table.store.cancel("ann", other.id)
    table.store.rerun("ann", job.id)
    assert table.store.bounds_use(ANN).in_flight == 8.0


def test_bounds_are_exact_over_several_gateways_and_owners(open_table: Callable[..., Table]) -> None:
    tables = [open_table() for _ in range(4)]
    tables[0].store.set_bounds(STUDIO, Bounds(per_minute=10.0, per_day=10.0))
    start = threading.Barrier(8)

    def hurry(number: int) -> int:
        start.wait()
        accepted = 0
        for _ in range(4):
            try:
                tables[number % 4].submit(f"owner {number}", work=1.0, team="studio")
            except BoundReached:
                continue
            accepted += 1
        return accepted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hurry, range(8))) == 10
    assert tables[0].store.bounds_use(STUDIO).day == 10.0


def test_cancels_and_submissions_of_one_team_wait_for_each_other(open_table: Callable[..., Table]) -> None:
    tables = [open_table() for _ in range(2)]
    tables[0].store.set_bounds(STUDIO, Bounds(per_minute=1e6))
    jobs = [tables[0].submit(f"owner {n % 4}", work=1.0, team="studio", max_wait_seconds=1.0) for n in range(16)]

    def submit_more(number: int) -> None:
        for _ in range(8):
            tables[0].submit(f"owner {number}", work=1.0, team="studio")

    def cancel(number: int) -> None:
        for job in jobs[number::8]:
            tables[1].store.cancel(None, job.id)

    with ThreadPoolExecutor(9) as pool:
        sweeping = pool.submit(tables[1].pass_time, 16.0)
        list(pool.map(submit_more, range(4)))
        list(pool.map(cancel, range(4)))
        sweeping.result()
    assert tables[0].store.load()[0].queued >= 32


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_invalid_bounds_are_refused(table: Table, value: float) -> None:
    with pytest.raises(InvalidRequest, match=r"per_day: .* is invalid: must be a number of at least 0"):
        table.store.set_bounds(ANN, Bounds(per_day=value))


def test_nothing_is_allowed_by_a_rate_of_zero(table: Table) -> None:
    table.store.set_bounds(ANN, Bounds(per_minute=0.0))
    with pytest.raises(BoundReached) as raised:
        submit(table, 1.0)
    assert raised.value.retry_after is None
    table.store.set_bounds(ANN, Bounds())
    submit(table, 1.0)


def test_usage_is_the_ledger_added_up(table: Table) -> None:
    for owner, work in (("ann", 1.0), ("bob", 2.0), ("ann", 4.0)):
        table.submit(owner, work=work, team="studio", key_id=f"key of {owner}")
        draw(table)
    table.step_clock(86_400.0)
    table.submit("ann", work=8.0)
    draw(table)
    today = day_of(START)
    rows = table.store.usage(None, today, today + 2)
    seen = [(row.day - today, row.owner, row.team, row.key_id, row.jobs, row.megapixel_steps) for row in rows]
    assert seen == [
        (0, "ann", "studio", "key of ann", 2, 5.0),
        (0, "bob", "studio", "key of bob", 1, 2.0),
        (1, "ann", "", "", 1, 8.0),
    ]
    assert [row.owner for row in table.store.usage("bob", today, today + 2)] == ["bob"]
    assert [row.day for row in table.store.usage(None, today + 1, today + 2)] == [today + 1]
    entries = table.store.ledger(None)
    assert sum(entry.bill.megapixel_steps for entry in entries) == sum(row.megapixel_steps for row in rows)
    assert [(entry.team, entry.key_id) for entry in entries[:2]] == [("studio", "key of ann"), ("studio", "key of bob")]


def test_months_end_with_their_last_day() -> None:
    for day, expected in (((2026, 2, 28), (2026, 3, 1)), ((2026, 12, 31), (2027, 1, 1)), ((2028, 2, 1), (2028, 3, 1))):
        at = datetime(*day, 12, tzinfo=UTC).timestamp()
        assert next_month(at) == datetime(*expected, tzinfo=UTC).timestamp()
