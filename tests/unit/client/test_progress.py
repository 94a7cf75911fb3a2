"""The progress of a job."""

from __future__ import annotations

import pytest

from triton_diffusers_client.progress import JobState, Progress


@pytest.mark.parametrize(
    ("state", "step", "steps", "fraction"),
    [
        (JobState.QUEUED, 0, 0, 0.0),
        (JobState.RUNNING, 5, 20, 0.25),
        (JobState.CANCELLED, 5, 20, 0.25),
        (JobState.SUCCEEDED, 20, 20, 1.0),
        (JobState.SUCCEEDED, 0, 0, 1.0),  # it ended before its first report
    ],
)
def test_fraction_of_the_steps(state: JobState, step: int, steps: int, fraction: float) -> None:
    assert Progress(id="1", task_id="1", model="m", state=state, step=step, steps=steps).fraction == fraction
