"""The background build as a job on the job board, for callers of the ``jobs`` model."""

from __future__ import annotations

import os
import time

from triton_diffusers.inflight.job import JobState
from triton_diffusers.jobs.board import BoardEntry, JobBoard
from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target

_STEPS = 2  # built, in use
_SHOWN = {
    OptimizerState.BUILDING: (JobState.RUNNING, 0),
    OptimizerState.READY: (JobState.RUNNING, 1),
    OptimizerState.SWAPPED: (JobState.SUCCEEDED, 2),
    OptimizerState.FAILED: (JobState.FAILED, 0),
}


class OptimizerOnBoard:
    """Implements ``Observer`` for one engine."""

    def __init__(self, engine: str, board: JobBoard) -> None:
        self._engine = engine
        self._board = board
        self._arrived = time.time()

    def engine_changed(self, name: str) -> None: ...

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        if state not in _SHOWN:
            return
        shown, step = _SHOWN[state]
        self._board.post(
            BoardEntry(
                job_id=f"optimize-{target}-{self._engine}",
                pid=os.getpid(),
                model=self._engine,
                task_id=f"optimize-{target}",
                state=shown.value,
                step=step,
                steps=_STEPS,
                image_num=0,
                images_done=0,
                arrived=self._arrived,
                ended=time.time() if shown.ended else None,
                error_msg=failure,
            )
        )
