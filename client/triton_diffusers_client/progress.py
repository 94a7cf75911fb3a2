"""The progress of a job."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from triton_diffusers_client.errors import ServerError
from triton_diffusers_client.fields import JOBS_OUTPUTS
from triton_diffusers_client.tensors import Array, decode


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True if the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A job on the server's board.

    ``step`` and ``steps`` count the sampling steps of all its images together; ``steps`` is 0 while unknown.
    ``elapsed_seconds`` runs from arrival to now, or to the job's end. ``preview`` is a small JPEG of the first
    unfinished image, or empty.
    """

    task_id: str
    model: str
    state: JobState
    step: int
    steps: int
    image_num: int
    images_done: int
    elapsed_seconds: float
    error_msg: str
    preview: bytes

    @property
    def fraction(self) -> float:
        """Share of the sampling steps that are made, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0

    @classmethod
    def list_from_tensors(cls, tensors: Mapping[str, Array]) -> list[Self]:
        """Decode an answer of ``jobs``, newest job first; raises ``ServerError`` if it is not one."""
        columns = decode(tensors, JOBS_OUTPUTS)
        try:
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            return [
                cls(
                    **row
                    | {name: row[name].decode() for name in ("task_id", "model", "error_msg")}
                    | {"state": JobState(row["state"].decode()), "preview": base64.urlsafe_b64decode(row["preview"])}
                )
                for row in rows
            ]
        except ValueError as error:
            raise ServerError(f"the answer of jobs is invalid: {error}") from error
