"""The examples of docs/client.md do what they say; one of them in a real kernel of Jupyter."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import WITHIN, Service
from tests.integration.gateway.packages import python_client, run
from triton_diffusers_client import Client

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
# The kernel, and all that the client needs.
PACKAGES = ("ipykernel==7.4.0", "jupyter-client==8.10.0", "httpx2==2.16.2", "tqdm==4.70.1", "pillow==13.0.0")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of the examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_DIFFUSERS_URL", str(service.client.base_url))
    return tmp_path


def test_the_examples_in_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    examples = blocks("python")
    assert len(examples) > 5
    for example in examples:
        exec(compile(example, "docs/client.md", "exec"), names)
    assert (folder / "apple.png").read_bytes().startswith(b"\x89PNG")
    assert names["small"].size == names["apple"].pil().size
    assert names["image"].format == "png"
    assert len(list(folder.glob("*.png"))) == 3
    assert names["green"].images
    assert "steps 900 must be between 1 and 150" in capsys.readouterr().out


def test_the_examples_of_the_command_line(folder: Path) -> None:
    (block,) = blocks("console")
    lines = block.splitlines()
    assert len(lines) > 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "triton-diffusers-client"
        done = subprocess.run(
            [sys.executable, "-m", "triton_diffusers_client", *arguments],
            capture_output=True,
            text=True,
            timeout=WITHIN * 2,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
    assert {path.name for path in folder.iterdir()} == {"apple.png", "cats-1.jpg", "cats-2.jpg", "pomme.png"}
    with Client() as client:
        assert client.jobs(task_id="order-18") == []


@pytest.mark.heavy
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("folder")
def test_a_notebook_shows_progress_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    command = python_client("notebook.py", *PACKAGES)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "client"))
    found = json.loads(run(command))
    assert found["errors"] == []
    assert found["displayed"] == 1, "one output, which is updated in place"
    assert found["updates"] >= 2
    assert "<progress" in found["html"]
    assert "succeeded" in found["last_html"]
    assert found["preview"]
    assert "image/png" in found["image"]
    assert found["result"].count("<img src=") == 2
    assert found["missing"] == [], "neither the library nor PyTorch nor tritonclient is needed"
