"""The command line: what is wrong is one line and exit code 2, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from triton_diffusers.cli import main as cli

ROOT = Path(__file__).parents[3]
OPTIONS = [
    "--model-dir", "--model-repository", "--func-name", "--host", "--http-port", "--grpc-port", "--metrics-port",
    "--tritonserver", "--no-watch", "--hang-timeout", "--exit-timeout", "--log-level", "--verbose", "--log-file",
]  # fmt: skip


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    (tmp_path / "model" / "base_model").mkdir(parents=True)
    return tmp_path / "model"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository" / "painter").mkdir(parents=True)
    (tmp_path / "repository" / "painter" / "config.pbtxt").write_text('backend: "python"')
    return tmp_path / "repository"


def complaint(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that the command says."""
    assert cli.main(["serve", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("triton-diffusers: ")
    return line


def test_missing_model_directory(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    line = complaint("--model-repository", repository, "--model-dir", missing, capsys=capsys)
    assert line.endswith(f"there is no model directory at {missing}; name one with --model-dir")
    line = complaint("--model-repository", repository, "--model-dir", tmp_path, capsys=capsys)
    assert line.endswith(
        f"{tmp_path} is not a model: expected a folder with base_model/ or model_index.json in it, or one "
        ".safetensors or .ckpt file"
    )


def test_missing_repository(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint("--model-dir", model_dir, "--model-repository", tmp_path / "missing", capsys=capsys)
    assert f"there is no model repository at {tmp_path}/missing" in line


def test_port_in_use(model_dir: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = complaint(
            "--model-dir", model_dir, "--model-repository", repository, "--http-port", str(port), capsys=capsys
        )
    assert f"port {port} on 127.0.0.1 is in use; choose another with --http-port" in line


def test_what_is_wrong_here_is_told_before_a_model_is_fetched(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("triton_diffusers.launcher.launcher.fetch_model_dir", lambda source: fetched.append(source))
    remote = ("--model-dir", "hf://owner/name", "--model-repository", repository)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert f"port {port} on 127.0.0.1 is in use" in complaint(*remote, "--http-port", port, capsys=capsys)
    free = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")
    line = complaint(*remote, *free, "--tritonserver", tmp_path / "missing", capsys=capsys)
    assert line.endswith("missing is not a program that can be run")
    assert fetched == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hang-timeout", "soon"], "soon is not a number of seconds"),
        (["--exit-timeout", "-1"], "-1 is not a whole number of seconds"),
        (["--log-level", "loud"], "invalid choice: 'loud'"),
        (["--func-name", "video"], "invalid choice: 'video'"),
        (["--http-port", "web"], "invalid int value: 'web'"),
    ],
)
def test_unusable_option(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["serve", *arguments])
    assert said in capsys.readouterr().err


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["serve", "--help"])
    told = capsys.readouterr().out
    documented = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for option in OPTIONS:
        assert option in told
        assert option in documented, "docs/serving.md tells every option"
    assert "--host 0.0.0.0" in " ".join(told.split()), "how to open it up"


def test_starts_without_the_heavy_libraries() -> None:
    program = (
        "import sys, triton_diffusers.cli.main, triton_diffusers.launcher.launcher; "
        "print([name for name in ('torch', 'diffusers', 'transformers', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


def test_run_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "triton_diffusers", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip()
