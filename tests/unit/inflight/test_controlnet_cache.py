"""Cache of ControlNets: loaded once, bounded by memory, and never evicted while leased."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.waiting import WITHIN
from triton_diffusers.adapters.controlnet import ControlNetWeights, Identity
from triton_diffusers.errors import Cancelled, NotFound
from triton_diffusers.inflight.controlnet_cache import ControlNetCache, ControlNetLease

SIZE = 10  # bytes of each


class Net:
    """Loaded ControlNet that records its origin."""

    nbytes = SIZE

    def __init__(self, identity: Identity) -> None:
        self.identity = identity


class Disk:
    """ControlNet files with versions; records each reading and the thread that converts."""

    def __init__(self, *paths: str) -> None:
        self.versions = dict.fromkeys(paths, 1)
        self.read_paths: list[str] = []
        self.makers: list[str] = []

    def identity(self, path: str) -> Identity:
        if path not in self.versions:
            raise NotFound(path)
        return ((path, self.versions[path], 0),)

    def read(self, path: str) -> Any:
        self.read_paths.append(path)
        return Weights(self.identity(path))

    def make(self, weights: ControlNetWeights) -> Any:
        self.makers.append(threading.current_thread().name)
        return Net(weights.identity)


class Weights:
    nbytes = SIZE

    def __init__(self, identity: Identity) -> None:
        self.identity = identity


def on(disk: Disk, room_for: int, **options: float) -> ControlNetCache:
    reader: Any = disk
    return ControlNetCache(reader, disk.make, room_for * SIZE, **options)


def take(nets: ControlNetCache, *paths: str) -> ControlNetLease:
    return nets.acquire(paths, lambda: False)


def names(held: ControlNetLease) -> list[str]:
    return [net.identity[0][0] for net in held.nets]  # type: ignore[attr-defined]


def taken_aside(nets: ControlNetCache, paths: Sequence[str], given_up: threading.Event) -> Future[ControlNetLease]:
    """Acquire in another thread, which may have to wait."""
    return ThreadPoolExecutor(1).submit(nets.acquire, paths, given_up.is_set)


def test_controlnets_are_loaded_once_in_a_short_lived_thread() -> None:
    disk = Disk("a", "b")
    nets = on(disk, 2)
    assert nets.acquire_loaded(["a"]) is None
    assert names(take(nets, "a", "b", "a")) == ["a", "b", "a"]
    assert names(take(nets, "b")) == ["b"]
    kept = nets.acquire_loaded(["b", "a"])
    assert kept is not None
    assert names(kept) == ["b", "a"]
    assert disk.read_paths == ["a", "b"]
    assert all(name.startswith("controlnet") for name in disk.makers)
    assert not any(thread.name in disk.makers for thread in threading.enumerate())


def test_acquire_loaded_without_paths_returns_a_lease() -> None:
    held = on(Disk(), 0).acquire_loaded([])
    assert held is not None
    assert held.nets == ()


def test_least_recently_used_controlnet_is_evicted_first() -> None:
    disk = Disk("a", "b", "c")
    nets = on(disk, 2)
    for path in ("a", "b", "a", "c"):
        take(nets, path).release()
    assert nets.acquire_loaded(["b"]) is None
    assert nets.acquire_loaded(["a", "c"]) is not None


def test_changed_controlnet_file_is_read_again() -> None:
    disk = Disk("a")
    nets = on(disk, 2)
    take(nets, "a").release()
    disk.versions["a"] = 2
    assert nets.acquire_loaded(["a"]) is None
    assert take(nets, "a").nets[0].identity == (("a", 2, 0),)  # type: ignore[attr-defined]


def test_oversized_controlnet_is_loaded_if_it_is_alone() -> None:
    nets = on(Disk("a", "b", "c"), 0)
    held = take(nets, "a", "b")
    assert names(held) == ["a", "b"]
    held.release()
    take(nets, "c")
    assert nets.acquire_loaded(["a"]) is None
    assert nets.acquire_loaded(["b"]) is None


def test_acquire_waits_for_leased_memory() -> None:
    disk = Disk("a", "b", "c")
    nets = on(disk, 2)
    first, second = take(nets, "a"), take(nets, "b")
    waiting = taken_aside(nets, ["b", "c"], threading.Event())
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    second.release()
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)  # the waiter wants this one itself
    again = nets.acquire_loaded(["a"])
    assert again is not None, "what is loaded is there for others meanwhile"
    first.release()
    first.release()  # a second release has no effect
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    again.release()
    assert names(waiting.result(timeout=WITHIN)) == ["b", "c"]


def test_release_frees_memory_for_waiters() -> None:
    disk = Disk("a", "b")
    nets = on(disk, 1)
    held = take(nets, "a")
    waiting = taken_aside(nets, ["b"], threading.Event())
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    held.release()
    assert names(waiting.result(timeout=WITHIN)) == ["b"]


def hand_on(nets: ControlNetCache, held: ControlNetLease, path: str) -> ControlNetLease:
    """Make overlapping requests for a loaded ControlNet until one gets none; return the last lease."""
    deadline = time.monotonic() + WITHIN
    while (following := nets.acquire_loaded([path])) is not None:
        held.release()
        held = following
        assert time.monotonic() < deadline, "they never end"
    return held


def test_overlapping_leases_do_not_starve_a_waiter() -> None:
    nets = on(Disk("a", "b"), 1, patience=0.0)
    held = take(nets, "a")
    waiting = taken_aside(nets, ["b"], threading.Event())
    last = hand_on(nets, held, "a")
    following = taken_aside(nets, ["a"], threading.Event())
    last.release()
    theirs = waiting.result(timeout=WITHIN)
    assert names(theirs) == ["b"]
    theirs.release()
    assert names(following.result(timeout=WITHIN)) == ["a"], "it stood behind"
    assert nets.acquire_loaded(["a"]) is not None, "nobody waits any more"


def test_controlnets_of_the_waiter_remain_available() -> None:
    nets = on(Disk("a", "b", "c"), 2, patience=0.0)
    held, shared = take(nets, "a"), take(nets, "b")
    waiting = taken_aside(nets, ["b", "c"], threading.Event())
    last = hand_on(nets, held, "a")
    assert nets.acquire_loaded(["b"]) is not None
    assert nets.acquire_loaded([]) is not None
    assert nets.acquire_loaded(["b", "a"]) is None
    last.release()
    assert names(waiting.result(timeout=WITHIN)) == ["b", "c"]
    shared.release()


def test_cancelled_acquire_does_not_wait() -> None:
    disk = Disk("a", "b")
    nets = on(disk, 1)
    take(nets, "a")
    given_up = threading.Event()
    waiting = taken_aside(nets, ["b"], given_up)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    given_up.set()
    nets.wake()
    with pytest.raises(Cancelled):
        waiting.result(timeout=WITHIN)


def test_unreadable_controlnet_fails_its_caller() -> None:
    nets = on(Disk("a"), 1)
    with pytest.raises(NotFound):
        nets.acquire_loaded(["b"])
    with pytest.raises(NotFound):
        take(nets, "a", "b")
    assert names(take(nets, "a")) == ["a"]
