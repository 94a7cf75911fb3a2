"""The cache holds no more than it may, but always the latest."""

from __future__ import annotations

import torch

from triton_diffusers.util.cache import LruCache, one


def test_bounded_by_bytes_and_never_without_the_latest() -> None:
    cache = LruCache(20)
    small, large = torch.zeros(8, dtype=torch.uint8), torch.zeros(100, dtype=torch.uint8)
    for key in "abc":
        cache.put(key, small)
    assert cache.get("a") is None
    assert cache.get("b") is cache.get("c") is small
    cache.put("large", large)
    assert cache.get("large") is large
    assert len(cache) == 1
    cache.put("d", small)
    assert cache.get("large") is None


def test_a_value_in_place_of_another_counts_once() -> None:
    cache = LruCache(20)
    small = torch.zeros(8, dtype=torch.uint8)
    for _ in range(5):
        cache.put("a", small)
    cache.put("b", small)
    assert len(cache) == 2


def test_entries_are_counted_where_their_size_is_one() -> None:
    cache: LruCache[str, str | None] = LruCache(2, one)
    cache.put("a", None)
    cache.put("b", "2")
    assert cache.get("a") is None
    cache.put("c", "3")
    assert "a" in cache
    assert "b" not in cache
