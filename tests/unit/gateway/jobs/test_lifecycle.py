"""A job's way through the table, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.gateway.jobs.tables import BILL, RESULT, Table
from triton_diffusers.gateway.jobs.errors import JobNotFound, LeaseLost, NotDead, StillInFlight
from triton_diffusers.gateway.jobs.job import Blob, JobError, JobState, Lease, NewJob, Progress, Report


def test_accepted_job_is_kept_with_all_its_fields(table: Table, open_table: Callable[..., Table]) -> None:
    new = NewJob(
        model="sd_controlnet",
        request={"prompt": "猫 \0 \ud800", "seed": 7},
        work=12.5,
        images=4,
        pool="gpu",
        priority=3,
        label="task",
        dialect="native",
        tags={"k": "v"},
        traceparent="00-a-b-01",
    )
    (submitted,) = table.store.submit("ann", [new])
    job = open_table().store.get("ann", submitted.job.id)
    assert submitted.created
    assert job == submitted.job
    for name in ("model", "request", "work", "images", "pool", "priority", "label", "dialect", "tags", "traceparent"):
        assert getattr(job, name) == getattr(new, name)
    assert (job.owner, job.state, job.attempts, job.created) == ("ann", JobState.QUEUED, 0, 1_800_000_000.0)
    assert (job.started, job.ended, job.result, job.error) == (None, None, None, None)


def test_finished_job_has_its_result_and_one_bill(table: Table) -> None:
    job = table.submit(tags={"team": "t"}, work=3.0)
    claim = table.claim_one()
    assert claim.job.state == JobState.RUNNING
    assert (claim.job.id, claim.job.runner, claim.job.attempts) == (job.id, "runner", 1)
    table.step_clock(2.0)
    done = table.store.finish(claim.lease, RESULT, BILL)
    assert (done.state, done.result) == (JobState.SUCCEEDED, RESULT)
    assert table.store.finish(claim.lease, RESULT, BILL) == done, "a repeated call changes nothing"
    (entry,) = table.store.ledger("ann")
    assert (entry.job_id, entry.bill, entry.run_seconds, entry.work) == (job.id, BILL, 2.0, 3.0)
    assert (entry.tags, entry.state, entry.number) == ({"team": "t"}, JobState.SUCCEEDED, 1)
    assert table.kinds(job) == ["queued", "running", "succeeded"]


def test_failed_job_ends_with_its_error(table: Table) -> None:
    table.submit()
    done = table.store.fail(table.claim_one().lease, JobError(message="no\0 picture \ud800", code=460), retryable=False)
    assert (done.state, done.result) == (JobState.FAILED, None)
    assert done.error == JobError(message="no\ufffd picture ?", code=460)
    assert table.store.ledger(None) == []


def test_retryable_failures_end_as_dead_which_can_be_run_again(table: Table) -> None:
    job = table.submit()
    with pytest.raises(NotDead):
        table.store.rerun("ann", job.id)
    for attempt in (1, 2, 3):
        claim = table.claim_one()
        assert claim.job.attempts == attempt
        failed = table.store.fail(claim.lease, JobError(message="store is down", code=462), retryable=True)
    assert (failed.state, failed.error) == (JobState.DEAD, JobError(message="store is down", code=462))
    assert not table.claim()
    assert table.store.rerun("ann", job.id).state == JobState.QUEUED
    claim = table.claim_one()
    assert claim.job.attempts == 1
    assert table.store.finish(claim.lease, RESULT, BILL).state == JobState.SUCCEEDED
    assert len(table.store.ledger("ann")) == 1


def test_silent_runner_loses_its_job_to_another(table: Table) -> None:
    job = table.submit()
    first = table.claim_one("a")
    table.pass_time(24.0)
    assert not table.claim()
    table.pass_time(8.0)
    second = table.claim_one("b")
    assert second.job.id == job.id
    assert second.lease.epoch > first.lease.epoch
    with pytest.raises(LeaseLost):
        table.store.finish(first.lease, RESULT, BILL)
    with pytest.raises(LeaseLost):
        table.store.fail(first.lease, JobError(message="late"), retryable=True)
    with pytest.raises(LeaseLost):
        table.store.finish_cancelled(first.lease)
    assert table.store.renew([Report(lease=first.lease)]).lost == [job.id]
    table.store.release([first.lease])
    assert table.state(job) == JobState.RUNNING
    assert table.store.finish(second.lease, RESULT, BILL).state == JobState.SUCCEEDED
    assert len(table.store.ledger(None)) == 1


def test_expired_lease_is_void_before_the_job_is_claimed_again(table: Table) -> None:
    table.submit()
    lease = table.claim_one().lease
    table.pass_time(32.0)
    with pytest.raises(LeaseLost):
        table.store.finish(lease, RESULT, BILL)


def test_job_is_dead_after_its_third_lost_runner(table: Table) -> None:
    job = table.submit()
    for _ in range(3):
        lease = table.claim_one().lease
        table.pass_time(32.0)
    dead = table.store.get("ann", job.id)
    assert (dead.state, dead.error) == (JobState.DEAD, JobError(message="the runner was lost"))
    with pytest.raises(LeaseLost):
        table.store.finish(lease, RESULT, BILL)


def test_renewed_lease_is_kept(table: Table) -> None:
    job = table.submit()
    lease = table.claim_one().lease
    for _ in range(12):
        table.pass_time(8.0)
        signals = table.store.renew([Report(lease=lease)])
        assert (signals.lost, signals.cancelled) == ([], [])
    assert table.state(job) == JobState.RUNNING


@pytest.mark.parametrize("step", [3600.0, -3600.0, 10 * 365 * 86400.0])
def test_clock_step_neither_expires_nor_prolongs_anything(table: Table, step: float) -> None:
    waiting = table.submit("bob", max_wait_seconds=60.0)
    running = table.submit("ann", priority=1)
    claim = next(claim for claim in table.claim(2) if claim.job.id == running.id)
    table.store.release([other.lease for other in table.claim(2)])
    old = table.submit("cid")
    table.store.cancel("cid", old.id)
    table.step_clock(step)
    table.store.sweep()
    assert table.state(old) == JobState.CANCELLED
    assert table.store.renew([Report(lease=claim.lease)]).lost == []
    table.pass_time(36.0)
    assert table.store.renew([Report(lease=claim.lease)]).lost == [running.id]
    table.pass_time(28.0)
    assert table.state(waiting) in (JobState.EXPIRED, JobState.RUNNING)


def test_leases_survive_a_time_without_the_table(table: Table) -> None:
    job = table.submit()
    lease = table.claim_one().lease
    table.step_clock(600.0)  # nobody could sweep or renew
    table.store.sweep()
    assert table.state(job) == JobState.RUNNING
    assert table.store.renew([Report(lease=lease)]).lost == []


def test_released_job_is_at_its_old_place_and_unharmed(table: Table) -> None:
    jobs = [table.submit(), table.submit()]
    for _ in range(5):
        claim = table.claim_one()
        assert (claim.job.id, claim.job.attempts) == (jobs[0].id, 1)
        table.store.release([claim.lease])
    released = table.store.get("ann", jobs[0].id)
    assert (released.state, released.attempts, released.runner) == (JobState.QUEUED, 0, "")
    with pytest.raises(LeaseLost):
        table.store.finish(claim.lease, RESULT, BILL)


def test_forgotten_runner_loses_its_leases_at_once(table: Table) -> None:
    jobs = [table.submit(), table.submit(), table.submit()]
    table.claim(2, runner="a")
    table.claim(1, runner="b")
    assert sorted(table.store.forget_runner("a")) == sorted(job.id for job in jobs[:2])
    assert [table.state(job) for job in jobs] == [JobState.QUEUED, JobState.QUEUED, JobState.RUNNING]
    assert table.store.get(None, jobs[0].id).attempts == 1


def test_queued_job_is_cancelled_at_once(table: Table) -> None:
    job = table.submit()
    assert table.store.cancel("ann", job.id).state == JobState.CANCELLED
    assert not table.claim()
    assert table.store.cancel("ann", job.id).state == JobState.CANCELLED
    assert table.kinds(job) == ["queued", "cancelled"]


def test_running_job_is_cancelled_by_its_runner(table: Table) -> None:
    job = table.submit()
    lease = table.claim_one().lease
    asked = table.store.cancel("ann", job.id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert table.store.renew([Report(lease=lease)]).cancelled == [job.id]
    assert table.store.finish_cancelled(lease, BILL).state == JobState.CANCELLED
    assert table.store.finish_cancelled(lease, BILL).state == JobState.CANCELLED
    assert [entry.state for entry in table.store.ledger("ann")] == [JobState.CANCELLED]
    assert table.kinds(job) == ["queued", "running", "cancelling", "cancelled"]


@pytest.mark.parametrize("way", ["finish", "fail", "retry", "release", "lost"])
def test_cancelled_job_never_succeeds_or_runs_again(table: Table, way: str) -> None:
    job = table.submit()
    lease = table.claim_one().lease
    table.store.cancel("ann", job.id)
    if way == "finish":
        table.store.finish(lease, RESULT, BILL)
    elif way == "release":
        table.store.release([lease])
    elif way == "lost":
        table.pass_time(32.0)
    else:
        table.store.fail(lease, JobError(message="x"), retryable=way == "retry")
    ended = table.store.get("ann", job.id)
    assert (ended.state, ended.result) == (JobState.CANCELLED, None)
    assert not table.claim()


def test_waiting_job_expires(table: Table) -> None:
    job = table.submit(max_wait_seconds=10.0)
    running = table.submit("bob", max_wait_seconds=10.0)
    table.store.release([c.lease for c in table.claim(2) if c.job.id == job.id])
    table.pass_time(8.0)
    assert table.state(job) == JobState.QUEUED
    table.pass_time(4.0)
    assert table.state(job) == JobState.EXPIRED
    assert table.state(running) == JobState.RUNNING


def test_job_without_callers_is_cancelled_after_a_grace(table: Table) -> None:
    job = table.submit(waiting=True, fingerprint="f")
    assert table.submit(waiting=True, fingerprint="f").id == job.id
    table.store.leave(job.id, 5.0)
    table.pass_time(8.0)
    assert table.state(job) == JobState.QUEUED, "one caller still waits"
    table.store.leave(job.id, 5.0)
    table.pass_time(4.0)
    assert table.submit(waiting=True, fingerprint="f").id == job.id, "a caller who comes back keeps it"
    table.pass_time(8.0)
    table.store.leave(job.id, 5.0)
    table.pass_time(8.0)
    assert table.state(job) == JobState.CANCELLED


def test_acknowledged_job_is_not_abandoned(table: Table) -> None:
    job = table.submit()
    table.store.leave(job.id, 0.0)
    table.pass_time(8.0)
    assert table.state(job) == JobState.QUEUED


def test_deleted_job_leaves_nothing_but_its_bill(table: Table) -> None:
    job = table.submit(inputs={"image": Blob(data=b"png")})
    with pytest.raises(StillInFlight):
        table.store.delete("ann", job.id)
    done = table.store.finish(table.claim_one().lease, RESULT, BILL)
    assert table.store.delete("ann", job.id) == done
    with pytest.raises(JobNotFound):
        table.store.get("ann", job.id)
    names = ("jobs", "requests", "results", "inputs", "previews", "events")
    counts = table.store.database.read(lambda s: [s.rows(f"SELECT COUNT(*) AS n FROM {n}")[0]["n"] for n in names])
    assert counts == [0] * len(names)
    assert len(table.store.ledger(None)) == 1


def test_progress_and_previews_are_those_of_the_run(table: Table) -> None:
    job = table.submit()
    lease = table.claim_one().lease
    assert table.store.renew([Report(lease=lease)]).previews_wanted == []
    table.store.want_preview("ann", job.id)
    assert table.store.renew([Report(lease=lease)]).previews_wanted == [job.id]
    for step in (1, 2):
        progress = Progress(step=step, steps=4, images_done=0)
        preview = Blob(data=b"%d" % step, media_type="image/png")
        table.store.renew([Report(lease=lease, progress=progress, preview=preview)])
    assert table.store.preview("ann", job.id) == Blob(data=b"2", media_type="image/png")
    assert table.store.get("ann", job.id).progress == Progress(step=2, steps=4)
    events = table.store.events("ann", job.id)
    assert [(event.number, event.kind) for event in events] == [(1, "queued"), (2, "running"), (4, "progress")]
    assert events[-1].data == {"step": 2, "steps": 4, "images_done": 0}
    assert table.store.events("ann", job.id, after=4) == []
    table.pass_time(12.0)
    assert table.store.renew([Report(lease=lease)]).previews_wanted == []
    table.store.finish(lease, RESULT, BILL)
    assert table.store.preview("ann", job.id) is None
    assert [event.number for event in table.store.events("ann", job.id, after=2)] == [5]
    assert table.store.event_numbers([job.id, "unknown"]) == {job.id: 5}


def test_unknown_lease_is_lost(table: Table) -> None:
    job = table.submit()
    for lease in (Lease(job.id, 0), Lease(job.id, 1), Lease("unknown", 1), Lease("\0", 1)):
        with pytest.raises(LeaseLost):
            table.store.finish(lease, RESULT, BILL)
    assert table.state(job) == JobState.QUEUED
