"""Command line and environment of tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.launcher.command import model_settings, server_command
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.ports import Ports
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.runtime import TritonRuntime
from triton_diffusers.launcher.workspace import Workspace


def test_the_default_translator_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ServeOptions(model_repository=tmp_path, model_dir="", translator_dir=Path("/checkout/models/translator"))
    with Workspace.create(None) as workspace:
        monkeypatch.delenv("TRITON_DIFFUSERS_TRANSLATOR_DIR", raising=False)
        found = model_settings(options, tmp_path, workspace)
        assert found["TRITON_DIFFUSERS_TRANSLATOR_DIR"] == "/checkout/models/translator"
        monkeypatch.setenv("TRITON_DIFFUSERS_TRANSLATOR_DIR", "/own")
        assert "TRITON_DIFFUSERS_TRANSLATOR_DIR" not in model_settings(options, tmp_path, workspace)


@pytest.mark.parametrize(("extra", "ours"), [((), True), (("--http-header-forward-pattern=x-.*",), False)])
def test_triton_passes_headers_on_unless_the_operator_says_which(
    tmp_path: Path, extra: tuple[str, ...], ours: bool
) -> None:
    """The models go by the absence of these headers, so they must know that Triton passes them on."""
    options = ServeOptions(model_repository=tmp_path, model_dir="", extra_arguments=extra)
    with Workspace.create(None) as workspace:
        settings = model_settings(options, tmp_path, workspace)
        runtime = TritonRuntime(tmp_path, tmp_path, "here", {})
        command = server_command(options, Repository(tmp_path, {}), runtime, Ports(1, 2, 3), workspace)
    assert ("TRITON_DIFFUSERS_HEADERS_FORWARDED" in settings) == ours
    assert [argument for argument in command if "header-forward-pattern" in argument] == [
        *(
            ["--http-header-forward-pattern=(?i)^host$", "--grpc-header-forward-pattern=(?i)^user-agent$"]
            if ours
            else []
        ),
        *extra,
    ]
