"""The commands ``gateway`` and ``runner``: their arguments, and starts that fail."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from triton_diffusers.cli.main import main
from triton_diffusers.runner.settings import RunnerOptions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the calls that the commands made."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("triton_diffusers.gateway.server.run_gateway", lambda *given: calls.append(given))
    monkeypatch.setattr("triton_diffusers.runner.command.run_runner", lambda *given: calls.append(given))
    return calls


def test_gateway_listens_on_this_machine_only_by_default(started: list[tuple[Any, ...]]) -> None:
    assert main(["gateway"]) == 0
    assert main(["gateway", "--host", "0.0.0.0", "--port", "0", "--database", "postgresql://db/jobs"]) == 0
    (host, port, settings, _), (other_host, other_port, other_settings, _) = started
    assert (host, port, settings.database_url[:10]) == ("127.0.0.1", 8080, "sqlite:///")
    assert (other_host, other_port, other_settings.database_url) == ("0.0.0.0", 0, "postgresql://db/jobs")


def test_runner_has_the_window_of_its_server(started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_IMAGES_IN_FLIGHT", "10")
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_DATABASE", "postgresql://db/jobs")
    assert main(["runner"]) == 0
    assert main(["runner", "--name", "a", "--triton", "b:1", "--pool", "c", "--max-images", "3"]) == 0
    (options, settings, limits), (others, _, _) = started
    assert options == RunnerOptions(name=socket.gethostname(), max_images=12)
    assert others == RunnerOptions(name="a", triton="b:1", pool="c", max_images=3)
    assert (settings.database_url, limits.max_images_in_flight) == ("postgresql://db/jobs", 10)


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_a_window_holds_at_least_one_image(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runner", f"--max-images={number}"])
    assert "is not a whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["gateway", "runner"])
def test_an_invalid_setting_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_URL_SECONDS", "-1")
    assert main([command]) == 2
    assert capsys.readouterr().err.startswith(
        "triton-diffusers: TRITON_DIFFUSERS_GATEWAY_URL_SECONDS: '-1' is invalid: "
    )


def test_a_port_that_is_in_use_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_STATE_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["gateway", "--port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use" in capsys.readouterr().err
