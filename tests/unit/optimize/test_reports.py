"""Reports of a background build: on the job board and in the server's log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target
from triton_diffusers.triton_backend.optimizing import OptimizerOnBoard

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[JobBoard]:
    opened = JobBoard(tmp_path / "board")
    yield opened
    opened.close()


def test_a_build_is_shown_as_a_job(board: JobBoard) -> None:
    shown = OptimizerOnBoard("sd_base", board)
    target = Target("openvino", "int8")
    shown.optimizer_changed(OptimizerState.IDLE, None, "")
    assert not board.entries()
    seen = []
    for state in (OptimizerState.BUILDING, OptimizerState.READY, OptimizerState.SWAPPED):
        shown.optimizer_changed(state, target, "")
        (entry,) = board.entries()
        seen.append((entry.task_id, entry.model, entry.state, entry.step, entry.steps, entry.ended is not None))
    assert seen == [
        ("optimize-openvino-int8", "sd_base", "running", 0, 2, False),
        ("optimize-openvino-int8", "sd_base", "running", 1, 2, False),
        ("optimize-openvino-int8", "sd_base", "succeeded", 2, 2, True),
    ]


def test_a_failed_build_is_shown_with_its_reason(board: JobBoard) -> None:
    shown = OptimizerOnBoard("sd_base", board)
    shown.optimizer_changed(OptimizerState.BUILDING, Target("openvino"), "")
    shown.optimizer_changed(OptimizerState.FAILED, Target("openvino"), "the disk is full")
    (entry,) = board.entries("optimize-openvino")
    assert (entry.state, entry.error_msg) == ("failed", "the disk is full")


def test_logs_are_utf8_on_standard_error_in_any_locale() -> None:
    program = (
        "import logging; from triton_diffusers.triton_backend.logs import log_to_server; log_to_server('sd_base');"
        "log_to_server('sd_base'); logging.getLogger('triton_diffusers.optimize').info('compiling \\u2026');"
        "logging.getLogger('other').info('chatter')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    written = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    ).stderr.decode("utf-8")
    (line,) = written.splitlines()
    assert line.startswith("triton-diffusers: ")
    assert line.endswith(" INFO sd_base: compiling …")
