"""The engine processes of a server: one for each device and group of settings."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from triton_diffusers.launcher import engine_processes
from triton_diffusers.launcher.engine_processes import EngineProcesses
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.settings import SettingsError


@pytest.fixture
def supervisors(monkeypatch: pytest.MonkeyPatch) -> list[MagicMock]:
    """Record the supervisors that are made, with their arguments."""
    made: list[MagicMock] = []

    def make(address: object, environment: object, **options: object) -> MagicMock:
        made.append(MagicMock(address=address, environment=environment, options=options, failure=""))
        return made[-1]

    monkeypatch.setattr(engine_processes, "EngineSupervisor", make)
    return made


def engines_of(runtime_dir: Path, *models: Model, **settings: str) -> EngineProcesses:
    given = {"TRITON_DIFFUSERS_RUNTIME_DIR": str(runtime_dir)}
    given |= {f"TRITON_DIFFUSERS_{name.upper()}": value for name, value in settings.items()}
    return EngineProcesses(Repository(runtime_dir, {model.name: model for model in models}), given, 30.0)


BASE, CONTROL = (Model(name, needs_engine=True) for name in ("sd_base", "sd_controlnet"))


def test_models_of_equal_settings_share_an_engine(supervisors: list[MagicMock], tmp_path: Path) -> None:
    engines_of(tmp_path, BASE, CONTROL, Model("jobs"), model_dir="/models/x")
    (supervisor,) = supervisors
    assert supervisor.environment["TRITON_DIFFUSERS_MODEL_DIR"] == "/models/x"
    assert "PATH" in supervisor.environment, "the process's own is passed on"
    assert supervisor.options["hang_seconds"] == 30.0


def test_a_model_with_settings_of_its_own_has_an_engine_of_its_own(
    supervisors: list[MagicMock], tmp_path: Path
) -> None:
    other = Model("sd_controlnet", needs_engine=True, settings={"max_steps": "30", "dtype": ""})
    engines_of(tmp_path, BASE, other, max_steps="20")
    assert [supervisor.environment["TRITON_DIFFUSERS_MAX_STEPS"] for supervisor in supervisors] == ["20", "30"]
    assert "TRITON_DIFFUSERS_DTYPE" not in supervisors[1].environment


def test_each_device_has_an_engine(supervisors: list[MagicMock], tmp_path: Path) -> None:
    engines_of(tmp_path, BASE, CONTROL, device="cuda:0,cuda:1")
    assert [supervisor.address.device for supervisor in supervisors] == ["cuda:0", "cuda:1"]


def test_a_repository_without_generating_models_has_no_engine(supervisors: list[MagicMock], tmp_path: Path) -> None:
    assert engines_of(tmp_path, Model("jobs")).failure == ""
    assert supervisors == []


def test_settings_are_checked_before_anything_is_started(supervisors: list[MagicMock], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown setting 'max_stepz'"):
        engines_of(tmp_path, Model("sd_base", needs_engine=True, settings={"max_stepz": "3"}))


def test_engines_run_within_the_context_and_tell_their_failure(supervisors: list[MagicMock], tmp_path: Path) -> None:
    with engines_of(tmp_path, BASE, device="cuda:0,cuda:1") as engines:
        for supervisor in supervisors:
            supervisor.start.assert_called_once_with()
            supervisor.stop.assert_not_called()
        assert engines.failure == ""
        supervisors[1].failure = "no weights"
        assert engines.failure == "no weights"
    for supervisor in supervisors:
        supervisor.stop.assert_called_once_with()
