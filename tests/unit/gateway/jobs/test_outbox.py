"""Messages to webhooks, on both databases: made with the end of a job, claimed by one gateway at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import BILL, RESULT, Table
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.errors import JobNotFound, NoMessage
from triton_diffusers.gateway.jobs.job import Job, JobError, JobState, NewWebhook, Webhook, WebhookState
from triton_diffusers.gateway.jobs.webhook import Delivery

LEASE_SECONDS = 30.0


def hook(host: str = "a.example", events: Sequence[JobState] = (JobState.SUCCEEDED, JobState.DEAD)) -> NewWebhook:
    return NewWebhook(url=f"https://{host}/hook", host=host, events=events, base_url="http://gateway")


def succeed(table: Table, owner: str = "ann", **fields: Any) -> Job:
    table.submit(owner, **fields)
    return table.store.finish(table.claim_one().lease, RESULT, BILL)


def claim(table: Table, room: int = 8, **busy: Sequence[str]) -> Sequence[Delivery]:
    return table.store.outbox.claim(room, LEASE_SECONDS, **busy)


def webhook(table: Table, job: Job) -> Webhook:
    found = table.store.get(None, job.id).webhook
    assert found is not None
    return found


def test_the_end_of_a_job_makes_one_message(table: Table) -> None:
    job = table.submit(webhook=hook())
    assert job.webhook is not None
    assert (job.webhook.url, job.webhook.base_url) == ("https://a.example/hook", "http://gateway")
    assert (job.webhook.events, job.webhook.state) == ((JobState.SUCCEEDED, JobState.DEAD), WebhookState.NONE)
    assert not claim(table)
    lease = table.claim_one().lease
    table.store.finish(lease, RESULT, BILL)
    table.store.finish(lease, RESULT, BILL)  # repeated by the runner
    (delivery,) = claim(table)
    assert (delivery.job_id, delivery.owner, delivery.host, delivery.attempt) == (job.id, "ann", "a.example", 1)
    assert not claim(table)
    table.store.outbox.delivered(delivery, 204)
    after = webhook(table, job)
    assert (after.state, after.attempts, after.status, after.error) == (WebhookState.DELIVERED, 1, 204, "")
    assert after.message_id
    assert after.settled is not None
    table.pass_time(LEASE_SECONDS + 1)
    assert not claim(table)


def test_a_job_without_a_webhook_makes_no_message(table: Table) -> None:
    assert succeed(table).webhook is None
    assert not claim(table)


@pytest.mark.parametrize("state", [state for state in JobState if state.has_ended])
def test_each_end_makes_a_message_if_it_is_wanted(table: Table, state: JobState) -> None:
    others = [other for other in JobState if other.has_ended and other is not state]
    wanted = table.submit(webhook=hook(events=[state]), max_wait_seconds=9.0)
    unwanted = table.submit(webhook=hook("b.example", events=others), max_wait_seconds=9.0)
    _end_both(table, [wanted, unwanted], state)
    assert [table.state(job) for job in (wanted, unwanted)] == [state, state]
    assert [delivery.job_id for delivery in claim(table)] == [wanted.id]
    assert webhook(table, unwanted).state is WebhookState.NONE


def _end_both(table: Table, jobs: Sequence[Job], state: JobState) -> None:
    store = table.store
    if state is JobState.CANCELLED:
        for job in jobs:
            store.cancel("ann", job.id)
    elif state is JobState.EXPIRED:
        table.pass_time(12.0)
    elif state is JobState.DEAD:
        while claims := table.claim(2):
            for each in claims:
                store.fail(each.lease, JobError(message="x"), retryable=True)
    else:
        for each in table.claim(2):
            if state is JobState.SUCCEEDED:
                store.finish(each.lease, RESULT, BILL)
            else:
                store.fail(each.lease, JobError(message="x"), retryable=False)


def test_a_claim_that_is_not_settled_is_over_after_its_lease(table: Table) -> None:
    job = succeed(table, webhook=hook())
    (first,) = claim(table)
    message_id = webhook(table, job).message_id
    table.pass_time(LEASE_SECONDS + 1)
    (second,) = claim(table)
    assert (second.job_id, second.attempt) == (job.id, 2)
    assert second.age_seconds >= LEASE_SECONDS
    table.store.outbox.delivered(first, 200)
    table.store.outbox.give_up(first, 410, "late")
    table.store.outbox.retry(first, 0.0, 500, "late")
    assert webhook(table, job).state is WebhookState.WAITING, "the first claim is over"
    assert not claim(table)
    table.store.outbox.delivered(second, 200)
    assert webhook(table, job).state is WebhookState.DELIVERED
    assert webhook(table, job).message_id == message_id


def test_a_failed_attempt_is_due_again_after_its_pause(table: Table) -> None:
    job = succeed(table, webhook=hook())
    (first,) = claim(table)
    table.store.outbox.retry(first, 60.0, 500, "status 500")
    seen = webhook(table, job)
    assert (seen.state, seen.attempts, seen.status, seen.error) == (WebhookState.WAITING, 1, 500, "status 500")
    table.pass_time(40.0)
    assert not claim(table)
    table.pass_time(24.0)
    (second,) = claim(table)
    assert second.attempt == 2
    table.store.outbox.give_up(second, 0, "no connection" + "x" * 9000)
    seen = webhook(table, job)
    assert (seen.state, seen.attempts, seen.status) == (WebhookState.FAILED, 2, 0)
    assert seen.error.startswith("no connection")
    assert len(seen.error) == 300
    table.pass_time(100.0)
    assert not claim(table)


def test_a_message_is_delivered_again_on_demand_under_its_id(table: Table) -> None:
    job = succeed(table, webhook=hook())
    (delivery,) = claim(table)
    table.store.outbox.give_up(delivery, 410, "status 410")
    message_id = webhook(table, job).message_id
    with pytest.raises(JobNotFound):
        table.store.outbox.redeliver("bob", job.id)
    table.store.outbox.redeliver("ann", job.id)
    (again,) = claim(table)
    assert (again.attempt, again.age_seconds) == (1, 0.0)
    assert webhook(table, job).message_id == message_id


def test_nothing_is_delivered_again_without_a_message(table: Table) -> None:
    for job in (succeed(table), table.submit(webhook=hook())):
        with pytest.raises(NoMessage, match="has no webhook, or has not ended in a state that its webhook wants"):
            table.store.outbox.redeliver(None, job.id)


def test_a_rerun_withdraws_the_message_and_its_end_makes_another(table: Table) -> None:
    job = table.submit(webhook=hook())
    _end_both(table, [job], JobState.DEAD)
    (delivery,) = claim(table)
    first_id = webhook(table, job).message_id
    table.store.rerun("ann", job.id)
    table.store.outbox.delivered(delivery, 200)
    assert webhook(table, job).state is WebhookState.NONE
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    assert webhook(table, job).state is WebhookState.WAITING
    assert webhook(table, job).message_id not in ("", first_id)
    assert len(claim(table)) == 1


def test_a_deleted_job_takes_its_message_along(table: Table) -> None:
    job = succeed(table, webhook=hook())
    table.store.delete("ann", job.id)
    assert not claim(table)


def test_a_job_is_kept_until_its_message_is_settled(open_table: Callable[..., Table]) -> None:
    table = open_table(result_retention_seconds=0.0, job_retention_seconds=10.0)
    job = succeed(table, webhook=hook())
    (delivery,) = claim(table)
    table.store.outbox.retry(delivery, 50.0, 500, "status 500")
    table.store.drop_results([job.id])
    table.pass_time(60.0)
    (delivery,) = claim(table)
    table.store.outbox.delivered(delivery, 200)
    table.pass_time(4.0)
    with pytest.raises(JobNotFound):
        table.store.get(None, job.id)


def test_busy_hosts_and_owners_get_no_messages(table: Table) -> None:
    for owner, host in (("ann", "slow.example"), ("ann", "a.example"), ("bob", "slow.example"), ("bob", "b.example")):
        succeed(table, owner, webhook=hook(host))
    assert [each.host for each in claim(table, busy_hosts=["slow.example"])] == ["a.example", "b.example"]
    assert not claim(table, busy_owners=["ann", "bob"])
    assert [each.owner for each in claim(table, busy_owners=["ann"])] == ["bob"]
    assert [each.owner for each in claim(table)] == ["ann"]


def test_a_claim_takes_no_more_than_there_is_room_for(table: Table) -> None:
    for number in range(4):
        succeed(table, f"owner-{number}", webhook=hook(f"{number}.example"))
    assert [each.host for each in claim(table, room=3)] == ["0.example", "1.example", "2.example"]
    assert [each.host for each in claim(table, room=3)] == ["3.example"]


def test_each_message_is_claimed_by_one_of_several_gateways(table: Table, open_table: Callable[..., Table]) -> None:
    jobs = [succeed(table, f"owner-{number}", webhook=hook(f"{number}.example")) for number in range(24)]
    gateways = [open_table() for _ in range(4)]

    def take_all(gateway: Table) -> list[str]:
        taken: list[str] = []
        while claimed := claim(gateway, room=2):
            taken += [each.job_id for each in claimed]
        return taken

    with ThreadPoolExecutor(len(gateways)) as pool:
        taken = [job_id for each in pool.map(take_all, gateways) for job_id in each]
    # A gateway may pass over messages that another one is just taking.
    taken += take_all(table)
    assert sorted(taken) == sorted(job.id for job in jobs)


def test_a_webhook_that_cannot_be_kept_is_refused(table: Table) -> None:
    with pytest.raises(InvalidRequest, match=r"webhook\.url"):
        table.submit(webhook=NewWebhook(url="https://a.example/" + "x" * 2000, host="a.example", events=["dead"]))
