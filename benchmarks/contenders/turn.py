"""One turn of one contender: load, warm up, draw a picture, say what that took. Needs the standard library alone.

Once it has loaded, and after every step, it hands over to others that are timed beside it: it stops itself, with all
its threads, until it is told to continue.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

_CLEAR_PEAK = "5"  # proc(5), clear_refs: the peak becomes what is resident now
_PARENT_DEATH_SIGNAL = 1  # prctl(2)
_START_FIELD = 19  # proc(5), stat: starttime, counted from behind the program's name


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The image to draw, and paths.

    ``model`` is a model directory of this project, ``artifact`` what was made of it for the contender (empty: nothing).
    ``noise`` is a NumPy file with the first latents (1, 4, h, w), before the scheduler scales them, and those that
    ``seed`` gives, ``control`` a picture of the size for a ControlNet.
    """

    model: str
    artifact: str
    noise: str
    control: str
    picture: str
    prompt: str
    guidance: float
    seed: int
    side: int
    steps: int
    warm_up: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_model(self) -> Path:
        """The checkpoint in the diffusers layout."""
        return Path(self.model) / "base_model"

    @property
    def controlnet(self) -> Path:
        """A ControlNet for it, in the same layout."""
        return Path(self.model) / "controlnet"


class Drawer(Protocol):
    """A contender that has loaded the model."""

    @property
    def packages(self) -> Sequence[str]:
        """Whose versions its figures depend on."""

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """Return a picture (PIL), with guidance; ``on_step`` is called when a step is over."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Cost of a turn: seconds, without those of other contenders' turns, and bytes.

    ``ready`` is the time from the process' start to the first request that it could take, ``warm_up`` that of a first
    picture of one step. ``steps`` are the times between the ends of two steps (one less than there were steps),
    ``after`` from the last step's end to the picture, ``image`` all of it. ``peak`` is the most memory that was
    resident at once in the whole life of the process, ``peak_drawing`` after the warm-up; of what was resident at the
    end, ``mapped`` is backed by files, so that other processes share it and the system can take it back.
    """

    ready: float
    warm_up: float
    image: float
    steps: Sequence[float]
    after: float
    peak: int
    peak_drawing: int
    mapped: int
    packages: Mapping[str, str]


def take_turn(make: Callable[[Turn], Drawer]) -> None:
    """Return the whole program of a contender's module.

    Its arguments: the turn's JSON file and the one for what it took.
    """
    asked, answer = map(Path, sys.argv[1:])
    turn = Turn(**json.loads(asked.read_text(encoding="utf-8")))
    _end_with_parent()
    answer.write_text(json.dumps(asdict(measure(turn, make, _hand_over))), encoding="utf-8")


def measure(turn: Turn, make: Callable[[Turn], Drawer], hand_over: Callable[[], None]) -> Measured:
    """Load, warm up, draw, save the picture; ``hand_over`` returns when it is this contender's turn again."""
    drawer = make(turn)
    ready = _age()
    began = time.monotonic()
    if turn.warm_up:
        drawer.draw(1, lambda: None)
    warm_up = time.monotonic() - began
    peak_before = _memory("VmHWM")
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    spans: list[float] = []

    def stepped() -> None:
        nonlocal began
        spans.append(time.monotonic() - began)
        hand_over()
        began = time.monotonic()

    hand_over()
    began = time.monotonic()
    picture = drawer.draw(turn.steps, stepped)
    after = time.monotonic() - began
    if len(spans) != turn.steps:
        raise RuntimeError(f"{turn.steps} steps were asked for, {len(spans)} were made")
    peak_drawing = _memory("VmHWM")
    picture.save(turn.picture)
    return Measured(
        ready=ready,
        warm_up=warm_up,
        image=sum(spans) + after,
        steps=spans[1:],
        after=after,
        peak=max(peak_before, peak_drawing),
        peak_drawing=peak_drawing,
        mapped=_memory("RssFile"),
        packages={name: found for name in drawer.packages if (found := _version(name))},
    )


def _end_with_parent() -> None:
    """Let a stopped process continue: nothing else could, once this one is gone."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _hand_over() -> None:
    # To this thread: one for the process may stop another thread first, and this one would look at the clock meanwhile.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _age() -> float:
    """Seconds since this process was started."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_START_FIELD]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")


def _memory(name: str) -> int:
    """Return a figure of this process' memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"the system does not tell {name}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
