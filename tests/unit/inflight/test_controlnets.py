"""ControlNets as requests take them: loaded once, bounded by memory, and never taken from who uses them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.fake_engine import WITHIN
from triton_diffusers.adapters.controlnet import ControlNetWeights, Identity
from triton_diffusers.errors import Cancelled, NotFound
from triton_diffusers.inflight.controlnets import ControlNets, Held

SIZE = 10  # bytes of each


class Net:
    """A loaded one, which knows what it was loaded from."""

    nbytes = SIZE

    def __init__(self, identity: Identity) -> None:
        self.identity = identity


class Disk:
    """Paths and the versions of their files; notes each reading, and the thread that makes a network of it."""

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


def on(disk: Disk, room_for: int, **options: float) -> ControlNets:
    reader: Any = disk
    return ControlNets(reader, disk.make, room_for * SIZE, **options)


def take(nets: ControlNets, *paths: str) -> Held:
    return nets.take(paths, lambda: False)


def names(held: Held) -> list[str]:
    return [net.identity[0][0] for net in held.nets]  # type: ignore[attr-defined]


def taken_aside(nets: ControlNets, paths: Sequence[str], given_up: threading.Event) -> Future[Held]:
    """The same in another thread, which waits if it has to."""
    return ThreadPoolExecutor(1).submit(nets.take, paths, given_up.is_set)


def test_each_is_loaded_once_and_in_a_thread_that_ends() -> None:
    disk = Disk("a", "b")
    nets = on(disk, 2)
    assert nets.take_loaded(["a"]) is None
    assert names(take(nets, "a", "b", "a")) == ["a", "b", "a"]
    assert names(take(nets, "b")) == ["b"]
    kept = nets.take_loaded(["b", "a"])
    assert kept is not None
    assert names(kept) == ["b", "a"]
    assert disk.read_paths == ["a", "b"]
    assert all(name.startswith("controlnet") for name in disk.makers)
    assert not any(thread.name in disk.makers for thread in threading.enumerate())


def test_none_is_always_loaded() -> None:
    held = on(Disk(), 0).take_loaded([])
    assert held is not None
    assert held.nets == ()


def test_what_was_used_longest_ago_goes_first() -> None:
    disk = Disk("a", "b", "c")
    nets = on(disk, 2)
    for path in ("a", "b", "a", "c"):
        take(nets, path).give_back()
    assert nets.take_loaded(["b"]) is None
    assert nets.take_loaded(["a", "c"]) is not None


def test_a_changed_file_is_read_anew() -> None:
    disk = Disk("a")
    nets = on(disk, 2)
    take(nets, "a").give_back()
    disk.versions["a"] = 2
    assert nets.take_loaded(["a"]) is None
    assert take(nets, "a").nets[0].identity == (("a", 2, 0),)  # type: ignore[attr-defined]


def test_one_too_large_for_the_memory_is_loaded_if_it_is_alone() -> None:
    nets = on(Disk("a", "b", "c"), 0)
    held = take(nets, "a", "b")
    assert names(held) == ["a", "b"]
    held.give_back()
    take(nets, "c")
    assert nets.take_loaded(["a"]) is None
    assert nets.take_loaded(["b"]) is None


def test_who_finds_no_room_waits_for_who_has_it() -> None:
    disk = Disk("a", "b", "c")
    nets = on(disk, 2)
    first, second = take(nets, "a"), take(nets, "b")
    waiting = taken_aside(nets, ["b", "c"], threading.Event())
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    second.give_back()
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)  # it wants that one itself
    again = nets.take_loaded(["a"])
    assert again is not None, "what is loaded is there for others meanwhile"
    first.give_back()
    first.give_back()  # counts once
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    again.give_back()
    assert names(waiting.result(timeout=WITHIN)) == ["b", "c"]


def test_room_is_made_when_it_is_given_back() -> None:
    disk = Disk("a", "b")
    nets = on(disk, 1)
    held = take(nets, "a")
    waiting = taken_aside(nets, ["b"], threading.Event())
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    held.give_back()
    assert names(waiting.result(timeout=WITHIN)) == ["b"]


def hand_on(nets: ControlNets, held: Held, path: str) -> Held:
    """Overlapping requests for one that is loaded, until the next one gets none; what the last one holds."""
    deadline = time.monotonic() + WITHIN
    while (following := nets.take_loaded([path])) is not None:
        held.give_back()
        held = following
        assert time.monotonic() < deadline, "they go on for ever"
    return held


def test_overlapping_requests_do_not_keep_one_waiting_for_ever() -> None:
    nets = on(Disk("a", "b"), 1, patience=0.0)
    held = take(nets, "a")
    waiting = taken_aside(nets, ["b"], threading.Event())
    last = hand_on(nets, held, "a")
    following = taken_aside(nets, ["a"], threading.Event())
    last.give_back()
    theirs = waiting.result(timeout=WITHIN)
    assert names(theirs) == ["b"]
    theirs.give_back()
    assert names(following.result(timeout=WITHIN)) == ["a"], "it stood behind"
    assert nets.take_loaded(["a"]) is not None, "nobody waits any more"


def test_what_the_one_that_waits_wants_itself_is_there_for_others() -> None:
    nets = on(Disk("a", "b", "c"), 2, patience=0.0)
    held, shared = take(nets, "a"), take(nets, "b")
    waiting = taken_aside(nets, ["b", "c"], threading.Event())
    last = hand_on(nets, held, "a")
    assert nets.take_loaded(["b"]) is not None
    assert nets.take_loaded([]) is not None
    assert nets.take_loaded(["b", "a"]) is None
    last.give_back()
    assert names(waiting.result(timeout=WITHIN)) == ["b", "c"]
    shared.give_back()


def test_who_gives_up_does_not_wait() -> None:
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


def test_what_cannot_be_read_is_the_callers() -> None:
    nets = on(Disk("a"), 1)
    with pytest.raises(NotFound):
        nets.take_loaded(["b"])
    with pytest.raises(NotFound):
        take(nets, "a", "b")
    assert names(take(nets, "a")) == ["a"]
