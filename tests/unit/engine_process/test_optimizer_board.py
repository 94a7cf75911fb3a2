"""A background build, shown as a job on the job board."""

from __future__ import annotations

import os

from triton_diffusers.engine_process.optimizer_board import OptimizerOnBoard
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target


def test_a_build_is_shown_as_a_job(board: JobBoard) -> None:
    shown = OptimizerOnBoard("engine 0", board)
    target = Target("openvino", "int8")
    shown.optimizer_changed(OptimizerState.IDLE, None, "")
    assert not board.entries()
    seen = []
    for state in (OptimizerState.BUILDING, OptimizerState.READY, OptimizerState.SWAPPED):
        shown.optimizer_changed(state, target, "")
        (entry,) = board.entries()
        seen.append((entry.task_id, entry.model, entry.state, entry.step, entry.steps, entry.ended is not None))
    assert seen == [
        ("optimize-openvino-int8", "engine 0", "running", 0, 2, False),
        ("optimize-openvino-int8", "engine 0", "running", 1, 2, False),
        ("optimize-openvino-int8", "engine 0", "succeeded", 2, 2, True),
    ]


def test_a_failed_build_is_shown_with_its_reason(board: JobBoard) -> None:
    shown = OptimizerOnBoard("engine 0", board)
    shown.optimizer_changed(OptimizerState.BUILDING, Target("openvino"), "")
    shown.optimizer_changed(OptimizerState.FAILED, Target("openvino"), "the disk is full")
    (entry,) = board.entries("optimize-openvino")
    assert (entry.state, entry.error_msg, entry.pid) == ("failed", "the disk is full", os.getpid())


def test_each_engine_has_a_build_of_its_own(board: JobBoard) -> None:
    for number in range(2):
        OptimizerOnBoard(f"engine {number}", board).optimizer_changed(OptimizerState.BUILDING, Target("openvino"), "")
    assert sorted(entry.model for entry in board.entries("optimize-openvino")) == ["engine 0", "engine 1"]
