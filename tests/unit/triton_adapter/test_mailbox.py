"""How a model's start fails: nothing of it stays in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.contract import CONTRACTS
from triton_diffusers.optimize.optimizer import Optimizer
from triton_diffusers.settings import Settings, SettingsError


@pytest.fixture
def mailbox(adapter: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = adapter("mailbox")
    monkeypatch.setattr(module, "TritonTelemetry", MagicMock(wraps=module.TritonTelemetry))
    monkeypatch.setattr(module, "JobBoard", MagicMock())
    return module


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine": "warp"}, "TRITON_DIFFUSERS_ENGINE: .*warp"),
        (
            {"engine": "eager", "optimize": "openvino"},
            "TRITON_DIFFUSERS_OPTIMIZE: 'openvino' does not fit TRITON_DIFFUSERS_ENGINE=eager",
        ),
    ],
)
def test_settings_are_read_before_anything_is_made(
    mailbox: ModuleType, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        mailbox.Mailbox("sd_base", CONTRACTS["sd_base"], Settings(runtime_dir=tmp_path, **settings))
    mailbox.TritonTelemetry.assert_not_called()


def test_a_model_that_cannot_be_loaded_leaves_nothing(mailbox: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        mailbox.Mailbox("sd_base", CONTRACTS["sd_base"], Settings(model_dir=tmp_path, runtime_dir=tmp_path))
    mailbox.TritonTelemetry.assert_called_once()
    assert not threads() & {"metrics", "engine", "optimizer"}
    mailbox.JobBoard.return_value.close.assert_called_once_with()


def test_an_optimizer_that_cannot_begin_leaves_nothing(
    mailbox: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(optimizer: Optimizer) -> None:
        raise RuntimeError("no thread")

    monkeypatch.setattr(Optimizer, "start", fail)
    with pytest.raises(RuntimeError, match="no thread"):
        mailbox.Mailbox(
            "sd_base", CONTRACTS["sd_base"], Settings(model_dir=ROOT / "models" / "emoji", runtime_dir=tmp_path)
        )
    assert not threads() & {"metrics", "engine"}
    mailbox.JobBoard.return_value.close.assert_called_once_with()
