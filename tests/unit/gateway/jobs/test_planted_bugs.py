"""Bugs planted into the store, each of which the random histories have to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis.errors import Flaky

from tests.unit.gateway.jobs.histories import run_histories
from triton_diffusers.gateway.jobs import (
    claims,
    commands,
    fair_queue,
    housekeeping,
    lifecycle,
    outbox_log,
    sql_store,
    submission,
    uptime,
)
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.gateway.jobs.rows import lock_job

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(7200)]

Patch = pytest.MonkeyPatch


def _sql(module: Any, name: str, old: str, new: str) -> Callable[[Patch], None]:
    """Return a bug that changes one word of a statement."""

    def plant(patch: Patch) -> None:
        statement = getattr(module, name)
        assert old in statement
        patch.setattr(module, name, statement.replace(old, new))

    return plant


def _without(module: Any, name: str) -> Callable[[Patch], None]:
    """Return a bug that leaves a step out."""
    return lambda patch: patch.setattr(module, name, lambda *_args, **_kwargs: None)


def _no_fencing(patch: Patch) -> None:
    def leased(session: Any, lease: Any) -> Any:
        job = lock_job(session, None, lease.job_id)
        return None if JobState(job["state"]).has_ended else job

    patch.setattr(claims, "_leased", leased)


def _no_epochs_on_death(patch: Patch) -> None:
    def expire(session: Any, settings: Any, jobs: Any) -> None:
        for job in jobs:
            lifecycle.give_up_attempt(session, job, claims._LOST, settings.max_attempts)

    patch.setattr(claims, "expire_leases", expire)


def _no_charge(patch: Patch) -> None:
    charge = fair_queue.charge
    patch.setattr(fair_queue, "charge", lambda session, pool, owner, cost: charge(session, pool, owner, 0.0))


def _charge_by_job(patch: Patch) -> None:
    charge = fair_queue.charge
    patch.setattr(fair_queue, "charge", lambda session, pool, owner, cost: charge(session, pool, owner, 1.0))


def _double_bill(patch: Patch) -> None:
    write = lifecycle._write_bill

    def twice(session: Any, job: Any, *rest: Any) -> None:
        write(session, job, *rest)
        write(session, {**job, "id": job["id"] + "'"}, *rest)

    patch.setattr(lifecycle, "_write_bill", twice)


def _late_success(patch: Patch) -> None:
    def finish(session: Any, lease: Any, result: str, bill: Any) -> Any:
        if (job := claims._leased(session, lease)) is not None:
            lifecycle.end(session, job, JobState.SUCCEEDED, result=result, bill=bill)
        return claims.select_job(session, None, lease.job_id)

    patch.setattr(claims, "finish", finish)


def _requeue_cancelled(patch: Patch) -> None:
    requeue = lifecycle.requeue

    def keep(session: Any, job: Any, **rest: Any) -> None:
        requeue(session, {**job, "cancel_requested": 0}, **rest)

    patch.setattr(lifecycle, "requeue", keep)


def _endless_attempts(patch: Patch) -> None:
    give_up = lifecycle.give_up_attempt
    patch.setattr(lifecycle, "give_up_attempt", lambda session, job, error, _max: give_up(session, job, error, 10**6))


def _release_costs_an_attempt(patch: Patch) -> None:
    requeue = lifecycle.requeue

    def spend(session: Any, job: Any, *, reason: str, attempts: int) -> None:
        requeue(session, job, reason=reason, attempts=job["attempts"])

    patch.setattr(lifecycle, "requeue", spend)


def _wall_clock(patch: Patch) -> None:
    patch.setattr(uptime, "_elapsed", lambda ticked_at, now: now - ticked_at)


def _keys_of_anybody(patch: Patch) -> None:
    same = submission._same_job

    def any_owner(session: Any, owner: str, new: Any) -> Any:
        rows = session.rows("SELECT job_id FROM idempotency_keys WHERE idempotency_key = :k", k=new.idempotency_key)
        return rows[0]["job_id"] if rows else same(session, owner, new)

    patch.setattr(submission, "_same_job", any_owner)


def _join_nothing(patch: Patch) -> None:
    patch.setattr(submission, "_same_job", lambda *_: None)


def _skip_large(patch: Patch) -> None:
    def claim(session: Any, settings: Any, runner: str, pool: str, models: Any, max_images: int) -> Any:
        found = claims_claim(session, settings, runner, pool, models, max_images)
        for claimed in found[1:]:
            session.execute("UPDATE jobs SET runner = 'x' WHERE id = :id", id=claimed.job.id)
        return found

    claims_claim = claims.claim
    patch.setattr(claims, "claim", claim)


def _stale_cache(patch: Patch) -> None:
    get_many = sql_store.SqlJobStore.get_many
    seen: dict[Any, Any] = {}

    def cached(store: Any, ids: Any) -> Any:
        return (
            seen.setdefault((id(store), frozenset(ids)), None)
            or seen.__setitem__((id(store), frozenset(ids)), get_many(store, ids))
            or seen[id(store), frozenset(ids)]
        )

    patch.setattr(sql_store.SqlJobStore, "get_many", cached)


BUGS: dict[str, Callable[[Patch], None]] = {
    "no fencing": _no_fencing,
    "a dead job's lease is good": _no_epochs_on_death,
    "no fairness": _no_charge,
    "fairness by jobs": _charge_by_job,
    "idle time is saved up": _sql(
        fair_queue, "_ENQUEUE", "$greatest(accounts.virtual_time, excluded.virtual_time)", "0"
    ),
    "priority is ignored": _sql(fair_queue, "_CANDIDATES", "jobs.priority DESC, ", ""),
    "youngest first": _sql(fair_queue, "_CANDIDATES", "jobs.number LIMIT", "jobs.number DESC LIMIT"),
    "queue is not counted": _without(fair_queue, "dequeue"),
    "double bill": _double_bill,
    "no bill": _without(lifecycle, "_write_bill"),
    "no message to a webhook": _without(outbox_log, "append"),
    "success after a cancel": _late_success,
    "a cancelled job runs again": _requeue_cancelled,
    "no last attempt": _endless_attempts,
    "a release costs an attempt": _release_costs_an_attempt,
    "leases do not end": _sql(housekeeping, "_LEASES", "<= :time", "<= :time - 1000"),
    "leases end early": _sql(housekeeping, "_LEASES", "<= :time", "<= :time + 10"),
    "waits do not end": _sql(housekeeping, "_WAITS", "<= :time", "<= :time - 1000"),
    "abandoned jobs run": _sql(housekeeping, "_ABANDONED", "<= :time", "<= :time - 1000"),
    "leases by the wall clock": _wall_clock,
    "keys of other owners": _keys_of_anybody,
    "identical jobs are not joined": _join_nothing,
    "runner of a batch is lost": _skip_large,
    "running jobs can be deleted": lambda patch: patch.setattr(JobState, "has_ended", True),
    "rerun keeps attempts": _sql(commands, "_RERUN", "attempts = 0, ", ""),
    "states are cached": _stale_cache,
}


@pytest.mark.parametrize("bug", BUGS)
def test_histories_find(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[bug](monkeypatch)
    with pytest.raises(Exception) as raised:  # noqa: PT011  # an assertion of the model, or the database refuses
        run_histories(2000, None, derandomize=True, database=None, phases=[Phase.generate], print_blob=False)
    assert not isinstance(raised.value, TypeError | NameError | AttributeError), "the bug itself is broken"
    assert not isinstance(raised.value, Flaky), "the histories have found something else"
