"""The real build on the emoji model: killed and resumed, verified, used; and on a full disk."""

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
from triton_diffusers.compile.options import MIN_PSNR, PSNR_SPREAD
from triton_diffusers.compile.probes import probes
from triton_diffusers.compile.report import BEST
from triton_diffusers.compile.timing import ROUNDS
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.graphs import GRAPHS

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[2]
PRECISION = COMPILERS["openvino"]().precisions[0]  # what suits this processor, which may have no bfloat16
NAME = f"openvino-{PRECISION}"
STEPS = 4
WITHIN = 1200.0  # seconds; generous, for loaded machines
FIRST, *_ = GRAPHS
ROOM = 1000  # blocks that a file may have: half a megabyte, or a whole one, by the shell


def command(out: Path, *arguments: str) -> list[str]:
    model = ["--model", str(ROOT / "models" / "emoji"), "--engine", "openvino", "--steps", str(STEPS)]
    return [sys.executable, str(ROOT / "build_optimized.py"), *model, "--out", str(out), *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *arguments), capture_output=True, text=True, timeout=WITHIN)


@pytest.mark.heavy
@pytest.mark.timeout(3 * WITHIN)
def test_a_killed_build_is_resumed(tmp_path: Path) -> None:
    work = tmp_path / OPTIMIZED_MODEL / ".work" / NAME
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command(tmp_path), stderr=log, stdout=log)
    deadline = time.monotonic() + WITHIN
    while not (work / "complete" / f"{FIRST}.json").exists():
        assert first.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert f"another build of {NAME} is running" in run(tmp_path).stderr
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ArtifactStore(tmp_path / OPTIMIZED_MODEL).all() == {}

    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert f"resuming an earlier build: {FIRST}" in second.stderr
    assert f"compiling {FIRST} " not in second.stderr
    assert "times as fast" in second.stdout
    assert not work.exists()

    artifact = ArtifactStore(tmp_path / OPTIMIZED_MODEL).all()[NAME]
    assert isinstance(artifact, Artifact)
    figures = artifact.manifest.figures
    assert set(artifact.manifest.graphs) == {*GRAPHS}
    assert set(figures.psnr) == {*probes(figures.side, STEPS)}
    least = MIN_PSNR[PRECISION] - PSNR_SPREAD[PRECISION]
    assert least <= figures.lowest_psnr < BEST, "like the eager engine's, and not the eager engine's"
    assert len(figures.rounds) == ROUNDS
    assert min(min(pair) for pair in figures.rounds) > 0
    assert 100e6 < figures.peak_bytes < 4e9
    assert artifact.manifest.bytes == sum(
        path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    assert json.loads((artifact.folder / "manifest.json").read_text())["precision"] == PRECISION

    refused = run(tmp_path, "--force", "--min-psnr", str(BEST + 1))
    assert refused.returncode == 1
    assert "was rejected: its images differ too much from the eager engine" in refused.stderr.splitlines()[-1]
    assert ArtifactStore(tmp_path / OPTIMIZED_MODEL).all()[NAME] == artifact, "the one before is still there"


@pytest.mark.heavy
@pytest.mark.timeout(WITHIN)
def test_a_file_that_has_no_room_is_told(tmp_path: Path) -> None:
    """By a limit on files, which the system and OpenVINO answer as they do a full disk."""
    limited = ["sh", "-c", f'ulimit -f {ROOM}; exec "$@"', "sh", *command(tmp_path)]
    full = subprocess.run(limited, capture_output=True, text=True, timeout=WITHIN)
    assert full.returncode == 1, full.stderr
    told = full.stderr.splitlines()[-1]
    assert f"{FIRST}.part cannot be written: the disk is full, or a file must not be so large" in told
    assert ArtifactStore(tmp_path / OPTIMIZED_MODEL).all() == {}
