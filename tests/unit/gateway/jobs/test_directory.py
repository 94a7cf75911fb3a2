"""Announcements of runners and preferences of owners, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import Table
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.directory import ANNOUNCEMENT_SECONDS, Announcement


def announcement(runner: str = "one", **fields: Any) -> Announcement:
    return Announcement(**{"runner": runner, "pool": "p", "models": ["b", "a"], "description": {"n": 1}, **fields})


def test_announcements_hold_for_a_while(table: Table) -> None:
    directory = table.store.directory
    directory.announce(announcement("two"))
    table.pass_time(ANNOUNCEMENT_SECONDS / 2)
    directory.announce(announcement("one", description={"n": 0}))
    directory.announce(announcement("one"))
    assert directory.announcements() == [announcement(name, models=["a", "b"]) for name in ("one", "two")]
    table.pass_time(ANNOUNCEMENT_SECONDS / 2 + 1)
    assert [each.runner for each in directory.announcements()] == ["one"]
    directory.withdraw("one")
    assert not directory.announcements()


def test_preferences_are_kept_for_each_owner_and_kind(open_table: Callable[..., Table]) -> None:
    directory = open_table().store.directory
    directory.prefer("ann", "a", {"x": 1, "y": [2]})
    directory.prefer("ann", "a", {"x": None, "z": 3})
    directory.prefer("bob", "a", {"x": 4})
    other = open_table().store.directory
    assert other.preferences("ann", "a") == {"x": None, "y": [2], "z": 3}
    assert (other.preferences("bob", "a"), other.preferences("ann", "b")) == ({"x": 4}, {})


def test_preferences_that_are_set_at_once_are_all_kept(table: Table) -> None:
    directory = table.store.directory
    threads = [
        threading.Thread(target=directory.prefer, args=("ann", "a", {str(number): number})) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert directory.preferences("ann", "a") == {str(number): number for number in range(8)}


def test_preferences_are_bounded(table: Table) -> None:
    with pytest.raises(InvalidRequest, match="a: '…' is invalid: must have at most"):
        table.store.directory.prefer("ann", "a", {"x": "y" * 300_000})
    assert not table.store.directory.preferences("ann", "a")
