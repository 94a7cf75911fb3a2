"""The gateway and the runner beside a server are kept running, and end with it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import WITHIN, until
from triton_diffusers.cli.main import make_parser
from triton_diffusers.launcher import service as launcher_service
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.service import Service, ServiceProcess, service_beside

OPTIONS = ServeOptions(model_repository=Path("r"), model_dir="m", grpc_port=8001, gateway_port=8080, exit_timeout=15)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[str], ServiceProcess]]:
    """Return a function that starts a Python program, whose ``note(text)`` adds a line to ``notes``."""
    started: list[ServiceProcess] = []
    note = f"def note(text): open({str(tmp_path / 'notes')!r}, 'a').write(text + '\\n')\n"

    def start(program: str) -> ServiceProcess:
        started.append(ServiceProcess("gateway", [sys.executable, "-c", note + program], {"FROM_OUTSIDE": "value"}))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.terminate()
        each.join(0)


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[], list[str]]:
    path = tmp_path / "notes"
    return lambda: path.read_text().splitlines() if path.exists() else []


def test_a_process_that_ends_is_started_again(
    process: Callable[[str], ServiceProcess],
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher_service, "_MIN_PAUSE_SECONDS", 0.01)
    process("import os; note(os.environ['FROM_OUTSIDE']); os._exit(7)")
    until(lambda: len(notes()) >= 3)
    assert notes()[0] == "value"
    assert "the gateway has died: exit code 7; it is started again in 0.0 s" in caplog.text


def test_a_killed_process_is_reported_by_its_signal(
    process: Callable[[str], ServiceProcess],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher_service, "_MIN_PAUSE_SECONDS", 0.01)
    process("import os; os.kill(os.getpid(), 9)")
    until(lambda: "the gateway has died: SIGKILL; " in caplog.text)


@pytest.mark.parametrize(("calm_seconds", "pauses"), [(60.0, ["0.2", "0.4"]), (0.0, ["0.2", "0.2"])])
def test_the_pause_grows_unless_the_process_has_lived_for_long(
    process: Callable[[str], ServiceProcess],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    calm_seconds: float,
    pauses: list[str],
) -> None:
    monkeypatch.setattr(launcher_service, "_MIN_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(launcher_service, "_CALM_SECONDS", calm_seconds)
    process("raise SystemExit(7)")
    until(lambda: caplog.text.count("it is started again in") >= 2)
    assert re.findall(r"started again in (\S+) s", caplog.text)[:2] == pauses


def test_a_process_that_cannot_start_is_not_started_again(
    process: Callable[[str], ServiceProcess],
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    started = process("note('once'); print('triton-diffusers: no such setting'); raise SystemExit(2)")
    started.join(WITHIN)
    assert notes() == ["once"]
    assert "triton-diffusers: no such setting" in caplog.text
    assert "the gateway cannot start; see above" in caplog.text


def test_a_stopped_process_ends_and_stays_so(
    process: Callable[[str], ServiceProcess], notes: Callable[[], list[str]]
) -> None:
    started = process(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (note('stopped'), sys.exit(0)))\n"
        "note('started')\n"
        "time.sleep(60)"
    )
    until(notes)
    started.terminate()
    started.join(WITHIN)
    assert notes() == ["started", "stopped"]


def test_a_process_that_does_not_stop_is_killed(
    process: Callable[[str], ServiceProcess], notes: Callable[[], list[str]]
) -> None:
    started = process(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "note(str(os.getpid()))\n"
        "time.sleep(10000)"
    )
    (pid,) = until(notes)
    started.terminate()
    started.join(0.2)
    assert not Path(f"/proc/{pid}").exists()


def commands(service: Service) -> list[list[str]]:
    """Return the arguments of a service's processes, without the interpreter."""
    return [list(process._command[3:]) for process in service._processes]


def test_both_processes_are_told_where_to_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_RUNTIME_DIR", str(tmp_path))
    service = service_beside(OPTIONS, tmp_path)
    runner, gateway = (make_parser().parse_args(command) for command in commands(service))
    assert (gateway.command, gateway.host, gateway.port) == ("gateway", "127.0.0.1", 8080)
    assert (runner.command, runner.triton, runner.exit_timeout) == ("runner", "127.0.0.1:8001", 12.0)
    for process in service._processes:
        assert process._environment == {"TRITON_DIFFUSERS_GATEWAY_STATE_DIR": str(tmp_path / "gateway")}


def test_a_runner_reaches_a_server_that_listens_everywhere(tmp_path: Path) -> None:
    service = service_beside(ServeOptions(Path("r"), "m", host="::", gateway_port=1, store="s"), tmp_path)
    runner, gateway = (make_parser().parse_args(command) for command in commands(service))
    assert (gateway.host, runner.triton) == ("::", "[::1]:8001")
    assert service._processes[0]._environment["TRITON_DIFFUSERS_STORE"] == "s"


@pytest.mark.parametrize(
    ("environment", "http_port", "ephemeral", "place"),
    [
        ({}, 8000, False, "state/triton-diffusers/serve-8000"),
        ({}, 4321, True, "runtime/gateway"),
        ({"TRITON_DIFFUSERS_RUNTIME_DIR": "x"}, 8000, False, "runtime/gateway"),
        ({"TRITON_DIFFUSERS_GATEWAY_STATE_DIR": "{}/own"}, 8000, False, "own"),
    ],
)
def test_each_server_has_a_job_table_of_its_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    http_port: int,
    ephemeral: bool,
    place: str,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    options = ServeOptions(Path("r"), "m", http_port=http_port, gateway_port=1, ephemeral=ephemeral)
    for process in service_beside(options, tmp_path / "runtime")._processes:
        assert process._environment["TRITON_DIFFUSERS_GATEWAY_STATE_DIR"] == str(tmp_path / place)


def test_no_gateway_is_started_where_none_is_wanted_or_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert commands(service_beside(ServeOptions(Path("r"), "m"), tmp_path)) == []
    assert caplog.text == ""
    assert commands(service_beside(ServeOptions(Path("r"), "m", gateway_port=1, store=""), tmp_path)) == []
    assert "no gateway is started: jobs need a result store, and this server has none" in caplog.text
    monkeypatch.setattr(launcher_service, "find_spec", lambda name: None)
    assert commands(service_beside(OPTIONS, tmp_path)) == []
    assert "no gateway is started: install it with: pip install 'triton-diffusers[gateway]'" in caplog.text


def test_the_runner_is_drained_before_the_server_stops() -> None:
    calls: list[str] = []

    class Noted(ServiceProcess):
        def start(self) -> None:
            calls.append(f"start {self.name}")

        def terminate(self) -> None:
            calls.append(f"terminate {self.name}")

        def join(self, seconds: float) -> None:
            calls.append(f"join {self.name}")

    with Service(Noted("runner", [], {}), Noted("gateway", [], {})) as service:
        service.drain()
        assert calls == ["start runner", "start gateway", "terminate runner"]
    assert calls[3:] == ["terminate runner", "terminate gateway", "join runner", "join gateway"]
