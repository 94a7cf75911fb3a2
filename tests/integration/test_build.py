"""The real build on the emoji model: killed in the middle, gone on with, verified, used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triton_diffusers.artifacts import OPTIMIZED_MODEL, Artifact, ArtifactStore

ROOT = Path(__file__).parents[2]
NAME = "openvino-bfloat16"
WITHIN = 1200.0  # seconds; generous, for loaded machines

pytest.importorskip("openvino")


def command(out: Path, *arguments: str) -> list[str]:
    model = ["--model", str(ROOT / "models" / "emoji"), "--engine", "openvino", "--precision", "bf16"]
    return [sys.executable, str(ROOT / "build_optimized.py"), *model, "--out", str(out), *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, "--steps", "4", *arguments), capture_output=True, text=True, timeout=WITHIN)


@pytest.mark.heavy
@pytest.mark.timeout(3 * WITHIN)
def test_a_build_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    work = tmp_path / OPTIMIZED_MODEL / ".work" / NAME
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command(tmp_path, "--steps", "4"), stderr=log, stdout=log)
    deadline = time.monotonic() + WITHIN
    while not (work / "unet.part").exists():  # the first graph is done, the second is being made
        assert first.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "another build of openvino-bfloat16 is at work" in run(tmp_path).stderr
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ArtifactStore(tmp_path / OPTIMIZED_MODEL).all() == {}

    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert "going on with an earlier build: text_encoder done already" in second.stderr
    assert "compiling text_encoder" not in second.stderr
    assert "times as fast" in second.stdout
    assert not work.exists()

    artifact = ArtifactStore(tmp_path / OPTIMIZED_MODEL).all()[NAME]
    assert isinstance(artifact, Artifact)
    figures = artifact.manifest.figures
    assert set(artifact.manifest.graphs) == {"text_encoder", "unet", "vae_encoder", "vae_decoder"}
    assert set(figures.psnr) == {"picture", "wide", "variation", "lora"}
    assert 20 < figures.lowest_psnr < 90, "like the eager engine's, and not the eager engine's"
    assert figures.seconds_per_step > 0
    assert 100e6 < figures.peak_bytes < 4e9
    assert artifact.manifest.bytes == sum(
        path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    assert json.loads((artifact.folder / "manifest.json").read_text())["precision"] == "bfloat16"

    refused = run(tmp_path, "--force", "--min-psnr", "95")
    assert refused.returncode == 1
    assert "is not placed: it does not draw what the eager engine draws" in refused.stderr.splitlines()[-1]
    assert ArtifactStore(tmp_path / OPTIMIZED_MODEL).all()[NAME] == artifact, "the one before is still there"
