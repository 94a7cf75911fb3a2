"""The demo: an image, or one line that says why there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.waiting import WITHIN
from triton_diffusers.cli import main as cli


def test_demo_draws_and_leaves_nothing_running(tmp_path: Path) -> None:
    output = tmp_path / "images" / "demo.png"
    run = subprocess.run(
        [sys.executable, "-m", "triton_diffusers", "demo", "--output", str(output)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=2 * WITHIN,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, str(output)), run.stderr
    with Image.open(output) as drawn:
        assert "Steps: 20, Sampler: DPM++ 2M, CFG scale: 2" in drawn.info["parameters"], "the model's own defaults"
    left = {path.name for path in tmp_path.iterdir()}
    assert {name for name in left if not name.startswith("torchinductor")} == {"images"}, "but for PyTorch's cache"


def test_demo_says_why_it_cannot_draw(repository: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["demo", "--model-repository", str(repository), "--model-dir", str(model_dir)]
    assert cli.main(command) == 2
    assert "no model in" in capsys.readouterr().err
    config = repository / "mirror" / "config.pbtxt"
    config.write_text(config.read_text().replace("sleep", "prompt"))
    (repository / "mirror" / "broken").touch()
    assert cli.main(command) == 2
    assert re.search(r"^triton-diffusers: the server did not start: .*told to be broken\n$", capsys.readouterr().err)
