"""Order of claims, on both databases."""

from __future__ import annotations

from collections import Counter

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, Table, new_job
from triton_diffusers.gateway.jobs.job import Counters, Position


def _owners(table: Table, claims: int) -> list[str]:
    return [table.claim_one().job.owner for _ in range(claims)]


def test_owners_take_turns_however_many_jobs_they_have(table: Table) -> None:
    table.store.submit("greedy", [new_job() for _ in range(20)])
    table.store.submit("modest", [new_job() for _ in range(3)])
    assert Counter(_owners(table, 6)) == {"greedy": 3, "modest": 3}


def test_share_is_of_work_not_of_jobs(table: Table) -> None:
    table.store.submit("large", [new_job(work=4.0) for _ in range(10)])
    table.store.submit("small", [new_job(work=1.0) for _ in range(20)])
    assert Counter(_owners(table, 10)) == {"large": 2, "small": 8}


def test_weight_multiplies_the_share(table: Table) -> None:
    table.store.submit("heavy", [new_job(weight=3.0) for _ in range(20)])
    table.store.submit("light", [new_job() for _ in range(20)])
    assert Counter(_owners(table, 12)) == {"heavy": 9, "light": 3}


def test_idle_time_is_not_saved_up(table: Table) -> None:
    table.submit("late")
    table.claim_one()
    table.store.submit("busy", [new_job() for _ in range(40)])
    _owners(table, 20)
    table.store.submit("late", [new_job() for _ in range(20)])
    counts = Counter(_owners(table, 10))
    assert abs(counts["late"] - counts["busy"]) <= 2


def test_priority_counts_among_the_jobs_of_one_owner(table: Table) -> None:
    ids = [table.submit("ann", priority=priority).id for priority in (0, 5, 0, 5)]
    table.submit("bob")
    claimed = [table.claim_one().job for _ in range(5)]
    assert [job.id for job in claimed if job.owner == "ann"] == [ids[1], ids[3], ids[0], ids[2]]
    assert "bob" in [job.owner for job in claimed[:2]], "an owner's priorities do not hold others up"


def test_owners_with_equal_service_are_served_by_age(table: Table) -> None:
    for owner in ("zoe", "mia", "ann"):
        table.submit(owner)
    assert _owners(table, 3) == ["zoe", "mia", "ann"]


def test_claim_fills_the_room_in_order(table: Table) -> None:
    for images in (2, 1, 4, 1):
        table.submit(images=images)
    assert [claim.job.images for claim in table.claim(5)] == [2, 1], "what does not fit is not overtaken"
    assert [claim.job.images for claim in table.claim(2)] == [4], "the first is taken even if it is larger"
    assert table.claim(0) == []


def test_claim_is_for_the_models_and_the_pool_of_the_runner(table: Table) -> None:
    other = table.submit(model="other")
    elsewhere = table.submit(pool="elsewhere")
    served = table.submit()
    assert [claim.job.id for claim in table.claim(9)] == [served.id]
    assert [claim.job.id for claim in table.store.claim("r", "elsewhere", [MODEL], 9)] == [elsewhere.id]
    assert [claim.job.id for claim in table.store.claim("r", "default", ["other", MODEL], 9)] == [other.id]
    assert table.store.claim("r", "unknown", [MODEL], 9) == []


def test_pools_have_accounts_of_their_own(table: Table) -> None:
    table.store.submit("ann", [new_job(pool="far") for _ in range(10)])
    table.claim(10, pool="far")
    table.store.submit("bob", [new_job() for _ in range(4)])
    table.store.submit("ann", [new_job() for _ in range(4)])
    assert Counter(_owners(table, 4)) == {"ann": 2, "bob": 2}


def test_released_job_is_not_charged(table: Table) -> None:
    table.store.submit("ann", [new_job() for _ in range(8)])
    for _ in range(6):
        table.store.release([table.claim_one().lease])
    table.store.submit("bob", [new_job() for _ in range(8)])
    assert abs(Counter(_owners(table, 8))["ann"] - 4) <= 1


def test_jobs_handed_back_late_get_no_head_start(table: Table) -> None:
    table.store.submit("ann", [new_job() for _ in range(6)])
    leases = [claim.lease for claim in table.claim(6)]
    table.store.submit("bob", [new_job() for _ in range(30)])
    assert _owners(table, 20) == ["bob"] * 20
    table.store.release(leases)
    assert abs(Counter(_owners(table, 8))["ann"] - 4) <= 1


def test_position_is_the_order_of_claims(table: Table) -> None:
    table.store.submit("ann", [new_job(work=2.0) for _ in range(5)])
    table.store.submit("bob", [new_job(work=3.0, priority=number) for number in range(3)])
    jobs = table.store.jobs(None).jobs
    positions = {job.id: table.store.position(None, job.id) for job in jobs}
    assert all(position.wait_seconds is None for position in positions.values())
    claimed = [table.claim_one().job.id for _ in jobs]
    assert [positions[job_id].ahead for job_id in claimed] == list(range(8))
    assert table.store.position(None, claimed[0]) is None


def test_wait_is_estimated_from_the_speed_of_the_latest_jobs(table: Table) -> None:
    for _ in range(2):
        table.submit(work=10.0)
        claim = table.claim_one()
        table.step_clock(5.0)
        table.store.finish(claim.lease, RESULT, BILL)
    running, first, second = (table.submit(work=10.0) for _ in range(3))
    assert table.claim_one().job.id == running.id
    assert table.store.position("ann", first.id) == Position(ahead=0, wait_seconds=5.0)
    assert table.store.position("ann", second.id) == Position(ahead=1, wait_seconds=10.0)
    (load,) = table.store.load()
    assert (load.pool, load.queued, load.queued_work, load.running, load.running_work) == ("default", 2, 20.0, 1, 10.0)
    assert (load.work_per_second, load.oldest_wait_seconds) == (2.0, 0.0)


def test_counters_are_of_one_owner(table: Table) -> None:
    table.store.submit("ann", [new_job(work=2.0), new_job(work=3.0), new_job(pool="far", work=5.0)])
    table.submit("bob")
    table.claim(1)
    assert table.store.counters("ann") == Counters(queued=2, queued_work=8.0, running=1, running_work=2.0)
    assert table.store.counters("nobody") == Counters()
