"""Errors of the job table."""

from __future__ import annotations

import math

from triton_diffusers.errors import Busy, EngineFailure, InvalidRequest, NotFound


class JobNotFound(NotFound):
    """The owner has no such job, or it was deleted."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id[:80]!r} does not exist")


class KeyReused(InvalidRequest):
    """An idempotency key came with another request than the first time."""

    def __init__(self, key: str) -> None:
        super().__init__("Idempotency-Key", key, "was already used for another request")


class StillInFlight(InvalidRequest):
    """Only a job that has ended can be deleted."""

    def __init__(self, job_id: str) -> None:
        super().__init__("id", job_id, "the job has not ended; cancel it first")


class NotDead(InvalidRequest):
    """Only a dead job can be queued again."""

    def __init__(self, job_id: str) -> None:
        super().__init__("id", job_id, "only a dead job can be queued again")


class NoMessage(InvalidRequest):
    """The job has not sent anything to a webhook that could be sent again."""

    def __init__(self, job_id: str) -> None:
        super().__init__("id", job_id, "the job has no webhook, or has not ended in a state that its webhook wants")


class TooManyJobs(Busy):
    """The owner has as much in flight as is allowed."""


class BoundReached(Busy):
    """The work of a key, a user or a team is at its bound; ``retry_after`` seconds later there is room, if known."""

    def __init__(self, bound: str, work: float, retry_after: float | None) -> None:
        later = "" if retry_after is None else f"; try again in {math.ceil(retry_after)} s"
        super().__init__(f"{bound}; this request needs {work:.4g}{later}")
        self.retry_after = retry_after


class TableUnavailable(EngineFailure):
    """The database cannot be reached or written; the operation may or may not have happened. Try again later."""


class LeaseLost(Exception):
    """The lease is not the job's current one: it expired, or the job has ended. Drop the work."""

    def __init__(self, job_id: str, epoch: int) -> None:
        super().__init__(f"job {job_id}: epoch {epoch} does not hold the lease")
