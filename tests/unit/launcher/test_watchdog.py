"""A dead model that holds requests is the server's death; another one is mended. Triton is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.waiting import until
from triton_diffusers.launcher import watchdog as watchdog_module
from triton_diffusers.launcher.probe import Answer
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.launcher.watchdog import Watchdog, WatchTimes

TIMES = WatchTimes(tick=0.01, interval=0.02, patience=0.0, hang=0.2)


class Triton:
    """A server with one model; ``answer`` is that of every probe, None for a silent one."""

    def __init__(self) -> None:
        self.process = MagicMock(pid=7, is_alive=True)
        self.answer: Answer | None = Answer(200, "")
        self.endpoint = MagicMock(**{"is_model_ready.return_value": True, "progress.return_value": (1,)})

    def probe(self, endpoint: Any, model: str, body: Any) -> MagicMock:
        return MagicMock(age=1.0, wait=lambda seconds: self.answer)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Triton:
    made = Triton()
    monkeypatch.setattr(watchdog_module, "model_processes", lambda prefix, name: frozenset([made.process]))
    monkeypatch.setattr(watchdog_module, "Probe", made.probe)
    return made


@pytest.fixture
def watch(triton: Triton, tmp_path: Path) -> Iterator[Callable[[bool], Watchdog]]:
    watchdogs: list[Watchdog] = []

    def start(needs_engine: bool) -> Watchdog:
        repository = Repository(tmp_path, {"painter": Model("painter", probe={}, needs_engine=needs_engine)})
        watchdogs.append(Watchdog(repository, triton.endpoint, "prefix", TIMES))
        watchdogs[-1].start()
        return watchdogs[-1]

    yield start
    for made in watchdogs:
        made.stop()


def fault_of(watchdog: Watchdog) -> str:
    faults: list[str] = []

    def look() -> bool:
        faults.append(watchdog.fault)
        return bool(faults[-1])

    until(look)
    return faults[-1]


def end(triton: Triton) -> None:
    triton.process.is_alive = False


def be_unhealthy(triton: Triton) -> None:
    triton.answer = Answer(500, "Stub process 'painter_0_0' is not healthy.")


def be_silent(triton: Triton) -> None:
    triton.answer = None


@pytest.mark.parametrize(
    ("happen", "fault"),
    [
        (end, "its process 7 has ended"),
        (be_unhealthy, "Stub process 'painter_0_0' is not healthy."),
        (be_silent, "no answer for 1 s, and no progress either"),
    ],
)
def test_the_death_of_a_model_that_holds_requests_is_the_servers(
    watch: Callable[[bool], Watchdog], triton: Triton, happen: Callable[[Triton], None], fault: str
) -> None:
    watchdog = watch(True)
    assert watchdog.fault == ""
    happen(triton)
    assert fault_of(watchdog) == f"model painter is dead: {fault}"
    triton.endpoint.load.assert_not_called()


def test_another_model_is_loaded_again(watch: Callable[[bool], Watchdog], triton: Triton) -> None:
    watchdog = watch(False)
    dead, triton.process = triton.process, MagicMock(pid=8, is_alive=True)
    dead.is_alive = False
    be_unhealthy(triton)

    def load(name: str, timeout: float) -> None:
        triton.answer = Answer(200, "")

    triton.endpoint.load.side_effect = load
    until(lambda: triton.endpoint.load.called)
    triton.endpoint.unload.assert_called_with("painter")
    assert watchdog.fault == ""
