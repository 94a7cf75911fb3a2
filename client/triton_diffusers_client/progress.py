"""The progress of a job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from triton_diffusers_client.image import EncodedImage


class JobState(StrEnum):
    """The state of a job; ``expired`` and ``dead`` are of gateways only."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def ended(self) -> bool:
        """True if the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A job as its server sees it.

    ``step`` and ``steps`` count the sampling steps of all its images together; ``steps`` is 0 while unknown.
    ``elapsed_seconds`` runs from arrival to now, or to the job's end. ``position`` is the number of jobs ahead in a
    gateway's queue, and ``wait_seconds`` its estimate of the wait; None: unknown. ``preview`` is a small JPEG of the
    first unfinished image, if it was asked for and made.
    """

    id: str
    task_id: str
    model: str
    state: JobState
    step: int = 0
    steps: int = 0
    image_num: int = 0
    images_done: int = 0
    elapsed_seconds: float = 0.0
    error_msg: str = ""
    position: int | None = None
    wait_seconds: float | None = None
    preview: EncodedImage | None = None

    @property
    def fraction(self) -> float:
        """Share of the sampling steps that are made, 0 to 1; a job may succeed before its steps are known."""
        if self.state is JobState.SUCCEEDED:
            return 1.0
        return self.step / self.steps if self.steps else 0.0
