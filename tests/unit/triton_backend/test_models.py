"""The models' methods that Triton calls."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tools.model_config import REPOSITORY
from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.settings import PREFIX, SettingsError


@pytest.fixture(autouse=True)
def log_to_stderr(adapter: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    made = MagicMock()
    monkeypatch.setattr("triton_diffusers.util.process_log.log_to_stderr", made)
    return made


@pytest.fixture(autouse=True)
def _no_watch_of_the_parent(adapter: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter("models"), "_end_with", lambda server: None)


@pytest.mark.parametrize("name", ["jobs", "translator"])
def test_a_models_life(name: str, log_to_stderr: MagicMock, backend: MagicMock, tmp_path: Path) -> None:
    parameters = {key: {"string_value": str(tmp_path)} for key in ("runtime_dir", "model_dir")}
    model: Any = runpy.run_path(str(REPOSITORY / name / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize({"model_name": name, "model_config": json.dumps({"parameters": parameters})})
    log_to_stderr.assert_called_once_with(name)
    assert model.execute([]) == []
    request = MagicMock(**{"inputs.return_value": [], "parameters.return_value": ""})
    (answer,) = model.execute([request])
    assert answer is backend.InferenceResponse.return_value
    model.finalize()


def generating_model() -> Any:
    return runpy.run_path(str(REPOSITORY / "sd_base" / "1" / "model.py"))["TritonPythonModel"]()


def test_settings_are_read_before_anything_is_made(adapter: Callable[[str], ModuleType]) -> None:
    adapter("mailbox").Mailbox = MagicMock()
    parameters = {"max_batch": {"string_value": "0"}}
    with pytest.raises(SettingsError, match=r"^TRITON_DIFFUSERS_MAX_BATCH: '0' is invalid"):
        generating_model().initialize({"model_name": "sd_base", "model_config": json.dumps({"parameters": parameters})})
    adapter("mailbox").Mailbox.assert_not_called()


def test_a_generating_model_hands_its_settings_to_the_engine(
    adapter: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take settings from its configuration and from the environment; the probe and the like are not settings."""
    adapter("mailbox").Mailbox = mailbox = MagicMock()
    monkeypatch.setenv("TRITON_DIFFUSERS_RUNTIME_DIR", str(tmp_path))
    values = {"max_steps": "20", "dtype": "", "engine_process": "shared", "probe": "{}", "FORCE_CPU_ONLY": "no"}
    parameters = {name: {"string_value": value} for name, value in values.items()}
    model = generating_model()
    model.initialize({"model_name": "sd_base", "model_config": json.dumps({"parameters": parameters})})
    name, contract, settings, environment = mailbox.call_args.args
    assert (name, contract, settings.max_steps) == ("sd_base", CONTRACTS["sd_base"], 20)
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    assert given["TRITON_DIFFUSERS_MAX_STEPS"] == "20"
    assert given["TRITON_DIFFUSERS_RUNTIME_DIR"] == str(tmp_path)
    assert not {"TRITON_DIFFUSERS_DTYPE", "TRITON_DIFFUSERS_ENGINE_PROCESS", "TRITON_DIFFUSERS_PROBE"} & given.keys()
    model.finalize()
    mailbox.return_value.close.assert_called_once_with()


def test_a_model_process_ends_with_its_server(tmp_path: Path) -> None:
    """It does so while another thread keeps its exit waiting, as jobs in flight do."""
    model = (
        "import os, threading; from triton_diffusers.triton_backend.models import _end_with; "
        "threading.Thread(target=threading.Event().wait).start(); server = os.getppid(); "
        "print(os.getpid(), flush=True); _end_with(server)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {model!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert int(server.stdout.readline())
    server.kill()
    server.wait()
    assert server.stdout.read() == "", "the pipe is closed when the model process has ended"
    server.stdout.close()


def test_an_unloading_that_never_ends_ends_the_process() -> None:
    program = """
import ctypes, sys
from unittest.mock import MagicMock
sys.modules["triton_python_backend_utils"] = MagicMock()
from triton_diffusers.triton_backend import models
models._UNLOAD_SECONDS = 1
model = models.JobsModel()
# PyDLL keeps Python's lock during the call.
model._handler = MagicMock(**{"close.side_effect": lambda: ctypes.PyDLL(None).sleep(600)})
model.finalize()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert "in finalize" in ended.stderr
