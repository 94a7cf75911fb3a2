"""Pauses between attempts double up to a bound."""

from __future__ import annotations

from triton_diffusers.util.backoff import backoff


def test_backoff_doubles_up_to_the_longest() -> None:
    assert [backoff(attempt, first=0.5, longest=3.0) for attempt in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff(100_000, first=0.5, longest=3.0) == 3.0


def test_jitter_takes_at_most_half_away() -> None:
    pauses = [backoff(2, first=1.0, jitter=True) for _ in range(100)]
    assert all(2.0 <= pause <= 4.0 for pause in pauses)
    assert len(set(pauses)) > 1
