"""The background build as a job on the job board, for who asks the ``jobs`` model."""

from __future__ import annotations

import time

from triton_diffusers.inflight.job import JobState
from triton_diffusers.jobs.board import BoardEntry, JobBoard
from triton_diffusers.optimize.optimizer import OptimizerState
from triton_diffusers.optimize.policy import Target

_NUMBER = 0  # those of requests begin with 1
_STEPS = 2  # built, in use
_SHOWN = {
    OptimizerState.BUILDING: (JobState.RUNNING, 0),
    OptimizerState.READY: (JobState.RUNNING, 1),
    OptimizerState.SWAPPED: (JobState.SUCCEEDED, 2),
    OptimizerState.FAILED: (JobState.FAILED, 0),
}


class OptimizerOnBoard:
    """Implements ``Observer`` for one model."""

    def __init__(self, model: str, board: JobBoard) -> None:
        self._model = model
        self._board = board
        self._arrived = time.time()

    def engine_changed(self, name: str) -> None: ...

    def optimizer_changed(self, state: OptimizerState, target: Target | None, failure: str) -> None:
        if state not in _SHOWN:
            return
        shown, step = _SHOWN[state]
        self._board.post(
            BoardEntry(
                model=self._model,
                number=_NUMBER,
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
