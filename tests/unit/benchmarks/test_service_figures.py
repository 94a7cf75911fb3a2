"""Figures and schedules of the benchmarks of the service."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.gateway_cost import GATEWAY, TRITON, paired
from benchmarks.service_deaths import schedule


def test_overhead_is_the_median_of_pairs_by_tritons_median() -> None:
    found = paired({TRITON: [1.0, 2.0, 4.0], GATEWAY: [1.1, 2.3, 9.0]})
    assert found["overhead_seconds"] == pytest.approx(0.3)
    assert found["overhead"] == pytest.approx(0.15)
    assert found["rounds"] == 3


def test_schedule_has_each_kind_as_often_and_depends_on_the_seed() -> None:
    planned = schedule(("runner", "gateway"), 20, seed=1)
    assert Counter(kind for kind, _ in planned) == {"runner": 20, "gateway": 20}
    assert planned == schedule(("runner", "gateway"), 20, seed=1)
    assert planned != schedule(("runner", "gateway"), 20, seed=2)
