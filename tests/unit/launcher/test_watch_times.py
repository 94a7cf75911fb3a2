"""Repairs that keep failing are tried later and later, but always again."""

from __future__ import annotations

from triton_diffusers.launcher.watchdog import WatchTimes


def test_delays_grow_to_a_bound() -> None:
    times = WatchTimes(longest_delay=60)
    assert [times.delay(troubles) for troubles in (0, 1, 2, 3, 6, 7, 8, 1000)] == [0, 1, 2, 4, 32, 60, 60, 60]


def test_promise_of_ten_seconds_holds_by_design() -> None:
    times = WatchTimes()
    triton_says_so_after = 1.0
    assert times.tick + times.interval + triton_says_so_after < 10
