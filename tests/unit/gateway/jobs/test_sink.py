"""Sinks: order, groups, windows, commits and redelivery, on both databases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import BILL, RESULT, Table
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.job import Job, JobError
from triton_diffusers.gateway.jobs.sink import (
    MAX_DELIVERIES,
    Consumer,
    ConsumerReplaced,
    ConsumerState,
    EntryPosition,
    SinkAttributes,
    SinkEntry,
)

SINK = "ann/service"


def _end(table: Table, count: int = 1, **fields: object) -> list[Job]:
    """Finish some jobs that have a sink."""
    jobs = []
    for _ in range(count):
        jobs.append(table.submit(**{"sink": SINK, **fields}))
        table.store.finish(table.claim_one().lease, RESULT, BILL)
    return jobs


def _numbers(entries: Sequence[SinkEntry]) -> list[int]:
    return [entry.number for entry in entries]


def test_ended_jobs_are_appended_in_their_order(table: Table) -> None:
    done, elsewhere = _end(table, tags={"k": "v"})[0], _end(table, sink="other")[0]
    failed = table.submit(sink=SINK)
    table.store.fail(table.claim_one().lease, JobError(message="x"), retryable=False)
    expired = table.submit(sink=SINK, max_wait_seconds=1.0)
    table.pass_time(4.0)
    cancelled = table.submit(sink=SINK)
    table.store.cancel("ann", cancelled.id)
    _end(table, sink="")
    entries = table.store.sinks.read(SINK, limit=10)
    assert [(entry.number, entry.job_id) for entry in entries] == [(1, done.id), (2, failed.id), (3, expired.id)]
    assert (entries[0].tags, entries[0].created) == ({"k": "v"}, 1_800_000_000.0)
    assert [entry.job_id for entry in table.store.sinks.read("other")] == [elsewhere.id]


def test_group_shares_entries_out_and_each_group_gets_all(table: Table) -> None:
    _end(table, 4)
    sinks = table.store.sinks
    one, two = sinks.connect(SINK, "g", "one", 1), sinks.connect(SINK, "g", "two", 2)
    other = sinks.connect(SINK, "h", "one", 9)
    assert [_numbers(sinks.take(consumer)) for consumer in (one, two, one, other)] == [[1], [2, 3], [], [1, 2, 3, 4]]
    assert sinks.commit(SINK, "g", [1]) == 1
    assert _numbers(sinks.take(one)) == [4], "the window is free again"
    assert sinks.commit(SINK, "g", [2, 3, 4]) == 3
    assert sinks.attributes(SINK).length == 4, "the other group has committed nothing"
    sinks.commit(SINK, "h", [4, 3])
    assert _numbers(sinks.read(SINK, limit=9)) == [1, 2]
    assert sinks.commit(SINK, "h", [1, 2, 3, 99]) == 2
    assert sinks.attributes(SINK).length == 0


def test_committing_on_sending_deletes_at_once(table: Table) -> None:
    _end(table, 3)
    consumer = table.store.sinks.connect(SINK, "g", "c", 2)
    assert _numbers(table.store.sinks.take(consumer, commit=True)) == [1, 2]
    assert _numbers(table.store.sinks.take(consumer, commit=True)) == [3]
    assert table.store.sinks.attributes(SINK).length == 0
    _end(table)
    assert _numbers(table.store.sinks.take(consumer)) == [4], "numbers are not used again"


def test_idle_consumer_writes_only_its_signs_of_life(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    sinks = table.store.sinks
    consumer, other = sinks.connect(SINK, "g", "c", 1), sinks.connect(SINK, "g", "other", 1)
    _end(table, 2)
    assert (_numbers(sinks.take(consumer)), _numbers(sinks.take(other))) == ([1], [2])
    _end(table)
    writes: list[object] = []
    write = table.store.database.write

    def counted(*arguments: Any, **named: Any) -> Any:
        writes.append(arguments)
        return write(*arguments, **named)

    monkeypatch.setattr(table.store.database, "write", counted)
    for _ in range(3):
        assert sinks.take(consumer) == [], "its window is full"
        assert sinks.read(SINK, first=9, delete=True) == []
    assert writes == []
    sinks.commit(SINK, "g", [1])
    assert _numbers(sinks.take(consumer)) == [3]
    monkeypatch.undo()
    for _ in range(4):
        table.pass_time(12.0)
        assert sinks.take(consumer) == []
    sinks.commit(SINK, "g", [3])
    assert _numbers(sinks.take(consumer)) == [2], "the other one was silent"


@pytest.mark.parametrize("way", ["disconnect", "replace", "silence"])
def test_uncommitted_entries_return_when_a_consumer_is_lost(table: Table, way: str) -> None:
    _end(table, 3)
    sinks = table.store.sinks
    lost, other = sinks.connect(SINK, "g", "lost", 2), sinks.connect(SINK, "g", "other", 9)
    sinks.take(lost)
    assert _numbers(sinks.take(other)) == [3]
    if way == "disconnect":
        sinks.disconnect(lost)
    elif way == "replace":
        new = sinks.connect(SINK, "g", "lost", 2)
        sinks.disconnect(lost)  # the socket of the old connection closes late
        assert _numbers(sinks.take(new)) == [1, 2]
        sinks.disconnect(new)
    else:
        table.pass_time(20.0)
        assert sinks.take(other) == []
        table.pass_time(16.0)
    again = sinks.take(other)
    assert _numbers(again) == [1, 2]
    assert [entry.deliveries for entry in again] == ([3, 3] if way == "replace" else [2, 2])
    with pytest.raises(ConsumerReplaced):
        sinks.take(lost)


def test_rejected_entry_is_sent_again_until_it_is_undeliverable(table: Table) -> None:
    _end(table, 2)
    sinks = table.store.sinks
    consumer = sinks.connect(SINK, "g", "c", 1)
    for deliveries in range(1, 6):
        (entry,) = sinks.take(consumer)
        assert (entry.number, entry.deliveries) == (1, deliveries)
        assert sinks.reject(SINK, "g", [1]) == 1
    assert sinks.reject(SINK, "g", [1, 2]) == 0
    assert _numbers(sinks.take(consumer)) == [2]
    assert _numbers(sinks.read(SINK, limit=9)) == [2]


def test_entries_are_found_by_tags_number_and_job(table: Table) -> None:
    jobs = [_end(table, tags={"color": color, "all": "x"})[0] for color in ("red", "blue", "red")]
    sinks = table.store.sinks
    consumer = sinks.connect(SINK, "g", "c", 9)
    assert _numbers(sinks.take(consumer, tags={"color": "blue"})) == [2]
    assert _numbers(sinks.take(consumer, first=2, tags={"all": "x"})) == [3]
    assert _numbers(sinks.take(consumer)) == [1]
    assert _numbers(sinks.read(SINK, job_id=jobs[1].id)) == [2]
    assert sinks.read(SINK, job_id="unknown") == []
    assert _numbers(sinks.read(SINK, first=2, limit=9, tags={"color": "red"}, delete=True)) == [3]
    assert _numbers(sinks.read(SINK, limit=9)) == [1, 2]


def test_entries_are_deleted_for_all_groups(table: Table) -> None:
    _end(table, 6)
    sinks = table.store.sinks
    consumer = sinks.connect(SINK, "g", "c", 9)
    sinks.take(consumer)
    assert sinks.delete(SINK, [2, 5, 9]) == 2
    assert sinks.truncate(SINK, 4) == 2
    assert _numbers(sinks.read(SINK, limit=9)) == [4, 6]
    assert sinks.attributes(SINK).consumers[0].pending == 2


def test_entry_goes_with_its_job(table: Table) -> None:
    jobs = _end(table, 3)
    consumer = table.store.sinks.connect(SINK, "g", "c", 9)
    table.store.sinks.take(consumer)
    table.store.delete("ann", jobs[0].id)
    table.store.drop_results([jobs[1].id])
    assert _numbers(table.store.sinks.read(SINK, limit=9)) == [3]
    assert table.store.sinks.attributes(SINK).consumers[0].pending == 1


def test_dead_job_that_is_run_again_has_one_entry(table: Table) -> None:
    job = table.submit(sink=SINK)
    for _ in range(3):
        table.store.fail(table.claim_one().lease, JobError(message="x"), retryable=True)
    assert _numbers(table.store.sinks.read(SINK)) == [1]
    table.store.rerun("ann", job.id)
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    assert _numbers(table.store.sinks.read(SINK, limit=9)) == [2]


def test_search_and_attributes_tell_where_entries_are(table: Table) -> None:
    _end(table, 3)
    sinks = table.store.sinks
    assert sinks.attributes("unknown") == SinkAttributes(length=0, first=None, last=None, groups=[], consumers=[])
    consumer = sinks.connect(SINK, "g", "c", 1)
    sinks.take(consumer)
    state = ConsumerState(group="g", name="c", window=1, pending=1, connected=True)
    assert sinks.attributes(SINK) == SinkAttributes(length=3, first=1, last=3, groups=["g"], consumers=[state])
    assert sinks.search(SINK, "g", 1) == EntryPosition(consumer="c", waiting=0)
    assert sinks.search(SINK, "g", 3) == EntryPosition(consumer=None, waiting=1)
    assert sinks.search(SINK, "g", 9) is None
    sinks.disconnect(consumer)
    assert sinks.attributes(SINK).consumers[0].connected is False
    with pytest.raises(InvalidRequest):
        sinks.connect(SINK, "g\0", "c", 1)


def test_consumers_that_left_long_ago_are_forgotten(table: Table) -> None:
    sinks = table.store.sinks
    _end(table)
    sinks.take(sinks.connect(SINK, "g", "silent", 1))
    sinks.disconnect(sinks.connect(SINK, "g", "gone", 1))
    table.pass_time(650.0)
    sinks.connect(SINK, "g", "new", 1)
    assert [(each.name, each.pending) for each in sinks.attributes(SINK).consumers] == [("new", 0), ("silent", 1)]


@pytest.mark.parametrize("seed", range(4))
def test_random_consumers_get_every_entry(table: Table, seed: int) -> None:
    chance = random.Random(seed)
    sinks = table.store.sinks
    groups = ("g", "h")
    consumers: dict[tuple[str, str], Consumer] = {}
    pending: dict[tuple[str, str], set[int]] = {}
    committed: dict[str, set[int]] = {group: set() for group in groups}
    for group in groups:
        sinks.connect(SINK, group, "first", 1)
    deliveries: dict[tuple[str, int], int] = {}
    ended = 0
    for _ in range(60):
        who = chance.choice(groups), chance.choice("ab")
        match chance.choice(("end", "connect", "take", "take", "commit", "commit", "reject", "disconnect")):
            case "end":
                _end(table)
                ended += 1
            case "connect":
                consumers[who], pending[who] = sinks.connect(SINK, who[0], who[1], 2), set()
            case "take" if who in consumers:
                entries = sinks.take(consumers[who])
                taken = _numbers(entries)
                deliveries |= {(who[0], entry.number): entry.deliveries for entry in entries}
                held = set().union(*(pending[other] for other in pending if other[0] == who[0]))
                assert not held & set(taken), "an entry was sent to two consumers"
                assert not committed[who[0]] & set(taken), "a committed entry was sent again"
                assert taken == sorted(taken)
                pending[who] |= set(taken)
                assert len(pending[who]) <= 2, "the window is too full"
            case "commit" if pending.get(who):
                number = pending[who].pop()
                assert sinks.commit(SINK, who[0], [number]) == 1
                committed[who[0]].add(number)
            case "reject" if pending.get(who):
                number = pending[who].pop()
                assert sinks.reject(SINK, who[0], [number]) == 1
                if deliveries[who[0], number] >= MAX_DELIVERIES:
                    committed[who[0]].add(number)
            case "disconnect" if who in consumers:
                sinks.disconnect(consumers.pop(who))
                pending[who] = set()
            case _:
                pass
        left = set(_numbers(sinks.read(SINK, limit=1000)))
        assert left == set(range(1, ended + 1)) - (committed["g"] & committed["h"])
    for group in groups:
        last = sinks.connect(SINK, group, "last", 1000)
        for name in "ab":
            sinks.disconnect(sinks.connect(SINK, group, name, 1))
        got = set(_numbers(sinks.take(last)))
        assert got == left - committed[group], "a group was not sent everything that is left"
