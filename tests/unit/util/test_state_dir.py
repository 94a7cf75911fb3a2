"""The directory of state, for everything that keeps any."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.launcher.logs import default_log_file
from triton_diffusers.util.state_dir import state_dir


@pytest.fixture(autouse=True)
def no_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_STATE_HOME", "TRITON_DIFFUSERS_RUNTIME_DIR", "TRITON_DIFFUSERS_GATEWAY_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("chosen", ["", "relative/state"])
def test_it_is_in_the_home_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", chosen)
    assert state_dir() == tmp_path / ".local" / "state" / "triton-diffusers"


def test_all_users_of_it_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert GatewaySettings.read().state_dir == tmp_path / "triton-diffusers"
    assert GatewaySettings.read().database_url == f"sqlite:///{tmp_path}/triton-diffusers/jobs.sqlite"
    assert default_log_file(8000) == tmp_path / "triton-diffusers" / "serve-8000.log"
