"""Shares of the memory for input images."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import WITHIN
from triton_diffusers.errors import Busy, Cancelled
from triton_diffusers.images.budget import MemoryBudget, Share


def soon() -> float:
    return time.monotonic() + WITHIN


def taken(share: Share, nbytes: int) -> Share:
    share.add(nbytes)
    return share


def test_shares_never_exceed_the_total() -> None:
    budget = MemoryBudget(100)
    first = taken(budget.share(), 60)
    with pytest.raises(Busy, match=r"images: the 0\.0001 MB for input images of all requests are in use"):
        budget.share().add(41)
    taken(budget.share(), 40)
    assert budget.used == 100
    first.reduce_to(10)
    first.reduce_to(70)  # it is not a way to get more
    assert budget.used == 50


def test_a_closed_share_gives_back_all_and_takes_nothing() -> None:
    budget = MemoryBudget(100)
    with budget.share() as share:
        share.add(60)
    share.close()
    assert budget.used == 0
    with pytest.raises(Cancelled):
        share.add(1)


def test_a_share_waits_for_room() -> None:
    budget = MemoryBudget(100)
    first, second = taken(budget.share(), 60), budget.share()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(second.wait_for, 60, soon(), lambda: False)
        first.close()
        waiting.result(WITHIN)
    assert (second.nbytes, budget.used) == (60, 60)


def test_a_share_does_not_wait_for_ever() -> None:
    budget = MemoryBudget(100)
    taken(budget.share(), 60)
    with pytest.raises(Busy, match="no memory to decode"):
        budget.share().wait_for(60, time.monotonic() + 0.01, lambda: False)
    assert budget.used == 60


def test_a_share_that_is_given_up_stops_waiting() -> None:
    budget = MemoryBudget(100)
    first, other = taken(budget.share(), 60), taken(budget.share(), 10)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(budget.share().wait_for, 60, soon(), lambda: True)
        other.close()
        with pytest.raises(Cancelled):
            waiting.result(WITHIN)
    assert budget.used == first.nbytes
