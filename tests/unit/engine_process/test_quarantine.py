"""After a crash each suspect runs alone, so that another crash has one cause."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.engine_process.quarantine import Quarantine


@dataclass(eq=False)
class Entry:
    name: str
    is_suspect: bool = False


@pytest.fixture
def quarantine() -> Quarantine[Entry]:
    return Quarantine()


def released(quarantine: Quarantine[Entry]) -> list[str]:
    return [entry.name for entry in quarantine.release()]


def test_without_suspects_everything_is_released_at_once_in_order(quarantine: Quarantine[Entry]) -> None:
    for name in "abc":
        quarantine.add(Entry(name))
    assert released(quarantine) == ["a", "b", "c"]
    assert released(quarantine) == []
    assert quarantine.held == 0


def test_suspects_run_one_at_a_time_and_the_others_wait_for_all_of_them(quarantine: Quarantine[Entry]) -> None:
    first, second = Entry("first", is_suspect=True), Entry("second", is_suspect=True)
    for entry in (first, Entry("a"), second, Entry("b")):
        quarantine.add(entry)
    assert released(quarantine) == ["first"]
    assert quarantine.held == 3
    assert released(quarantine) == []
    assert quarantine.remove(first)
    assert released(quarantine) == ["second"]
    quarantine.remove(second)
    assert released(quarantine) == ["a", "b"]


def test_a_suspect_waits_for_what_runs_and_nothing_overtakes_it(quarantine: Quarantine[Entry]) -> None:
    quarantine.add(running := Entry("running"))
    assert released(quarantine) == ["running"]
    quarantine.add(Entry("suspect", is_suspect=True))
    quarantine.add(Entry("later"))
    assert released(quarantine) == []
    quarantine.remove(running)
    assert released(quarantine) == ["suspect"]


def test_a_request_that_ends_while_it_waits_is_never_released(quarantine: Quarantine[Entry]) -> None:
    suspect, gone, lost = Entry("suspect", is_suspect=True), Entry("gone"), Entry("lost", is_suspect=True)
    for entry in (suspect, gone, lost):
        quarantine.add(entry)
    assert released(quarantine) == ["suspect"]
    assert not quarantine.remove(gone)
    assert not quarantine.remove(lost)
    assert quarantine.held == 0
    assert quarantine.remove(suspect)
    assert released(quarantine) == []


def test_a_request_that_ends_during_the_release_makes_room(quarantine: Quarantine[Entry]) -> None:
    """One that the engine's loop refuses ends before the next one is released."""
    suspect = Entry("suspect", is_suspect=True)
    for entry in (suspect, Entry("a")):
        quarantine.add(entry)
    names = []
    for entry in quarantine.release():
        names.append(entry.name)
        quarantine.remove(entry)
    assert names == ["suspect", "a"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_a_suspect_is_never_together_with_another_request(arrivals: list[tuple[bool, int]]) -> None:
    """Each arrival is followed by the ends of a number of running requests, the oldest first."""
    quarantine: Quarantine[Entry] = Quarantine()
    running: list[Entry] = []
    done = 0

    def release() -> None:
        running.extend(quarantine.release())
        assert len(running) == 1 or not any(entry.is_suspect for entry in running)
        assert running or not quarantine.held, "something waits although nothing runs"

    for is_suspect, ends in arrivals:
        quarantine.add(Entry("", is_suspect=is_suspect))
        release()
        for _ in range(min(ends, len(running))):
            quarantine.remove(running.pop(0))
            done += 1
            release()
    while running:
        quarantine.remove(running.pop(0))
        done += 1
        release()
    assert done == len(arrivals)
