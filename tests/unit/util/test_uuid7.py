"""UUIDs of version 7."""

from __future__ import annotations

import time
from uuid import RFC_4122

import pytest

from triton_diffusers.util.uuid7 import uuid7


def test_uuid7_has_the_time_the_version_and_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0x0190_1234_5678 * 1_000_000 + 999_999)
    ids = [uuid7() for _ in range(100)]
    assert len(set(ids)) == 100
    for each in ids:
        assert (each.version, each.variant, each.int >> 80) == (7, RFC_4122, 0x0190_1234_5678)


def test_uuid7_sorts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10**18, 10**18 + 10**10, 10**7))
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    texts = [str(uuid7()) for _ in range(1000)]
    assert texts == sorted(texts)
