"""The supervisor starts an engine process again when it dies or hangs. The process is a small program of the tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until
from triton_diffusers.engine_process import supervisor as supervisor_module
from triton_diffusers.engine_process.address import EngineAddress, engine_addresses
from triton_diffusers.engine_process.supervisor import EngineSupervisor
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.util.files import open_locked

# It stands in for Python, and notes each of its starts; the file ``behaviour`` says how it behaves.
PROGRAM = f"""#!{sys.executable}
import os, signal, sys, threading, time
from pathlib import Path
from triton_diffusers.engine_process.channel import Channel, listen
from triton_diffusers.engine_process.messages import LoadFailed, Ping, Pong, Ready, Watch
from triton_diffusers.api.request import ModelDefaults

folder = Path(os.environ["TRITON_DIFFUSERS_RUNTIME_DIR"])
behaviour = (folder / "behaviour").read_text()
*_, name, number = sys.argv
print("engine", number, os.environ["TRITON_DIFFUSERS_DEVICE"], *sys.argv[1:5], flush=True)
with (folder / "starts").open("a") as starts:
    print(os.getpid(), file=starts)
if behaviour == "die":
    sys.exit(3)
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour == "slow":
    time.sleep(2.5)

def serve(channel):
    for message in channel.receive():
        if isinstance(message, Watch):
            channel.send(LoadFailed("no weights") if behaviour == "fail" else Ready(ModelDefaults(side=64)))
            if behaviour == "fail":
                channel.flush(10.0)
                os._exit(78)
        elif isinstance(message, Ping):
            channel.send(Pong())

listener = listen(folder / (name + ".sock"))
while True:
    end, _ = listener.accept()
    threading.Thread(target=serve, args=(Channel(end),), daemon=True).start()
"""


class Supervised:
    """An engine whose process is the small program."""

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self.lines: list[str] = []
        self._supervisors: list[EngineSupervisor] = []

    def behave(self, behaviour: str) -> None:
        (self.address.runtime_dir / "behaviour").write_text(behaviour)

    def supervise(self, *, hang_seconds: float = 0.0) -> EngineSupervisor:
        environment = {**os.environ, f"{PREFIX}RUNTIME_DIR": str(self.address.runtime_dir)}
        made = EngineSupervisor(self.address, environment, hang_seconds=hang_seconds, on_line=self.lines.append)
        made.start()
        self._supervisors.append(made)
        return made

    @property
    def starts(self) -> list[int]:
        """Process numbers of all processes so far."""
        path = self.address.runtime_dir / "starts"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def started(self, count: int) -> int:
        """Wait for so many starts, and return the last process."""
        until(lambda: len(self.starts) >= count)
        return self.starts[count - 1]

    def ready(self, supervisor: EngineSupervisor) -> None:
        """Wait until the supervisor knows that its engine is ready."""
        until(lambda: supervisor.is_ready)

    def stop(self) -> None:
        for supervisor in self._supervisors:
            supervisor.stop()


@pytest.fixture
def limits() -> list[float]:
    """Return the longest delays that were allowed after a death, in seconds."""
    return []


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch, limits: list[float]) -> list[int]:
    """Return the attempts that were followed by a delay, which is none in the tests."""
    attempts: list[int] = []

    def backoff(attempt: int, *, first: float, longest: float) -> float:
        attempts.append(attempt)
        limits.append(longest)
        return 0.0

    monkeypatch.setattr(supervisor_module, "backoff", backoff)
    return attempts


@pytest.fixture
def supervised(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delays: list[int]
) -> Iterator[Supervised]:
    monkeypatch.setattr(supervisor_module, "_PING_SECONDS", 0.05)
    program = tmp_path / "python"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    monkeypatch.setattr(supervisor_module, "python", lambda: str(program))
    (address,) = engine_addresses(Settings(runtime_dir=runtime_dir, device="cuda:3"))
    made = Supervised(address)
    made.behave("serve")
    yield made
    made.stop()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_process_has_the_settings_and_ends_with_the_supervisor(supervised: Supervised) -> None:
    supervisor = supervised.supervise()
    pid = supervised.started(1)
    until(lambda: supervised.lines)
    assert supervised.lines == ["engine 0 cuda:3 -X utf8 -m triton_diffusers.engine_process"]
    supervisor.stop()
    assert not is_alive(pid)
    assert len(supervised.starts) == 1
    assert supervisor.failure == ""


def test_a_process_that_has_died_is_started_again(
    supervised: Supervised, delays: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    supervised.supervise()
    for count in range(1, 4):
        os.kill(supervised.started(count), signal.SIGKILL)
    supervised.started(4)
    assert caplog.messages == ["engine 0 has died: SIGKILL; it is started again now"] * 3
    assert delays == [0, 1], "the first death is followed by none"


def test_a_process_that_dies_at_its_start_is_tried_again(
    supervised: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    supervised.behave("die")
    supervisor = supervised.supervise()
    supervised.started(2)
    supervised.behave("serve")
    supervised.ready(supervisor)
    assert caplog.messages[0] == "engine 0 has died: exit code 3; it is started again now"


def test_an_engine_that_has_served_is_started_again_soon_however_often_it_dies(
    supervised: Supervised, limits: list[float]
) -> None:
    supervisor = supervised.supervise()
    for count in range(1, 4):
        pid = supervised.started(count)
        supervised.ready(supervisor)
        os.kill(pid, signal.SIGKILL)
    supervised.started(4)
    assert limits == [2.0, 2.0]


def test_an_engine_that_dies_before_it_serves_is_started_again_later_and_later(
    supervised: Supervised, limits: list[float]
) -> None:
    supervised.behave("die")
    supervised.supervise()
    supervised.started(3)
    assert set(limits) == {30.0}


def test_a_long_life_is_followed_by_no_delay(
    supervised: Supervised, delays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_CALM_SECONDS", 0.0)
    supervised.supervise()
    for count in range(1, 4):
        os.kill(supervised.started(count), signal.SIGKILL)
    supervised.started(4)
    assert delays == []


def test_a_process_that_hangs_is_killed_and_started_again(
    supervised: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = supervised.supervise(hang_seconds=3.0)
    pid = supervised.started(1)
    supervised.ready(supervisor)
    time.sleep(4.0)
    assert len(supervised.starts) == 1, "it answers"
    os.kill(pid, signal.SIGSTOP)
    supervised.started(2)
    assert not is_alive(pid)
    assert "engine 0 has died: it has not answered for" in caplog.messages[0]


def test_a_process_may_be_silent_while_it_loads(supervised: Supervised) -> None:
    supervised.behave("slow")
    supervisor = supervised.supervise(hang_seconds=1.0)
    supervised.ready(supervisor)
    assert len(supervised.starts) == 1


def test_an_engine_that_cannot_be_loaded_is_not_tried_again(supervised: Supervised) -> None:
    supervised.behave("fail")
    supervisor = supervised.supervise()
    until(lambda: supervisor.failure)
    assert supervisor.failure == "no weights"
    supervisor.stop()
    assert len(supervised.starts) == 1
    os.close(open_locked(supervised.address.lock, wait=False))


def test_an_engine_that_has_served_is_tried_again_when_it_cannot_be_loaded(supervised: Supervised) -> None:
    """Somebody may be replacing the model's files."""
    supervisor = supervised.supervise()
    pid = supervised.started(1)
    supervised.ready(supervisor)
    supervised.behave("fail")
    os.kill(pid, signal.SIGKILL)
    supervised.started(3)
    assert supervisor.failure == ""


def test_another_supervisor_takes_over_when_the_first_one_ends(supervised: Supervised) -> None:
    first = supervised.supervise()
    pid = supervised.started(1)
    second = supervised.supervise()
    time.sleep(0.3)
    assert supervised.starts == [pid], "an engine has one process"
    first.stop()
    assert not is_alive(pid)
    supervised.started(2)
    supervised.ready(second)
    second.stop()
    assert len(supervised.starts) == 2


def test_a_supervisor_that_waits_can_be_stopped(supervised: Supervised) -> None:
    supervised.supervise()
    pid = supervised.started(1)
    supervised.supervise().stop()
    assert is_alive(pid)
    assert supervised.starts == [pid]


def test_a_process_that_does_not_end_is_killed(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_STOP_SECONDS", 0.2)
    supervised.behave("stubborn")
    supervisor = supervised.supervise()
    pid = supervised.started(1)
    supervised.ready(supervisor)
    supervisor.stop()
    assert not is_alive(pid)


def test_a_reader_of_the_log_that_is_gone_harms_nothing(supervised: Supervised) -> None:
    class Gone(list[str]):
        def append(self, line: str) -> None:
            raise BrokenPipeError

    supervised.lines = Gone()
    supervised.ready(supervised.supervise())


def test_the_real_process_tells_why_its_engine_cannot_be_loaded(tmp_path: Path, runtime_dir: Path) -> None:
    """In any locale, and however soon loading fails."""
    settings = {"MODEL_DIR": str(tmp_path / "没有"), "RUNTIME_DIR": str(runtime_dir)}
    given = {f"{PREFIX}{name}": value for name, value in settings.items()}
    (address,) = engine_addresses(Settings.read(environment=given))
    lines: list[str] = []
    environment = {**os.environ, **given, "LC_ALL": "C"}
    supervisor = EngineSupervisor(address, environment, hang_seconds=60.0, on_line=lines.append)
    supervisor.start()
    until(lambda: supervisor.failure)
    supervisor.stop()
    assert "没有" in supervisor.failure
    assert any("engine 0: the engine cannot be loaded" in line and "没有" in line for line in lines)
