"""What Triton calls."""

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
from triton_diffusers.settings import Settings, SettingsError


@pytest.fixture
def log_to_server(adapter: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    made = MagicMock()
    monkeypatch.setattr(adapter("logs"), "log_to_server", made)
    return made


@pytest.mark.parametrize("name", ["jobs", "translator"])
def test_a_models_life(name: str, log_to_server: MagicMock, backend: MagicMock, tmp_path: Path) -> None:
    parameters = {key: {"string_value": str(tmp_path)} for key in ("runtime_dir", "model_dir")}
    model: Any = runpy.run_path(str(REPOSITORY / name / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize({"model_name": name, "model_config": json.dumps({"parameters": parameters})})
    log_to_server.assert_called_once_with(name)
    assert model.execute([]) == []
    request = MagicMock(**{"inputs.return_value": [], "parameters.return_value": ""})
    (answer,) = model.execute([request])
    assert answer is backend.InferenceResponse.return_value
    model.finalize()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine": "warp"}, "TRITON_DIFFUSERS_ENGINE: .*warp"),
        (
            {"engine": "eager", "optimize": "openvino"},
            "TRITON_DIFFUSERS_OPTIMIZE: 'openvino' is invalid with TRITON_DIFFUSERS_ENGINE=eager",
        ),
    ],
)
def test_settings_are_read_before_anything_is_made(
    adapter: Callable[[str], ModuleType], tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    adapter("mailbox").Mailbox = MagicMock()
    model: Any = runpy.run_path(str(REPOSITORY / "sd_base" / "1" / "model.py"))["TritonPythonModel"]()
    with pytest.raises(SettingsError, match=reason):
        model.make_handler("sd_base", Settings(runtime_dir=tmp_path, **settings))
    adapter("mailbox").Mailbox.assert_not_called()


def test_a_model_process_ends_with_its_server(tmp_path: Path) -> None:
    """It does so while another thread keeps its exit waiting, as jobs in flight do."""
    model = (
        "import os, threading; from triton_diffusers.triton_backend.models import _end_with; "
        "threading.Thread(target=threading.Event().wait).start(); "
        "print(os.getpid(), flush=True); _end_with(os.getppid())"
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
