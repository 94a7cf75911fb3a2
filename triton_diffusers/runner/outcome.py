"""Outcomes of jobs, from Triton's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from triton_diffusers.api.statuses import INVALID_FIELD, INVALID_IMAGE, SERVER_ERROR
from triton_diffusers.gateway.jobs.job import Bill, Job, JobError
from triton_diffusers.gateway.work import work_of_parameters
from triton_diffusers.runner.triton import Progress, TritonError

_IMAGE_FIELDS = ("image", "mask", "control_image")
# Of Triton and of the models: nothing has run, and the same request may succeed soon.
_NOT_STARTED = ("requests wait", "is stopping", "is recovering", "has no available versions", "is not found")
_PROCESS_DIED = ("Stub process", "is not healthy")
_KEPT_OUTPUTS = ("seed", "prompt", "is_nsfw", "use_blade", "profile", "warnings", "queue_seconds", "run_seconds")


class Verdict(Enum):
    """The fate of a job that Triton has answered with an error."""

    FAIL = "fail"
    RETRY = "retry"
    HAND_BACK = "hand back"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a job, and what becomes of the job."""

    verdict: Verdict
    error: JobError


def failure_of(error: TritonError, *, cancelled: bool) -> Failure:
    """Return the outcome of an error; ``cancelled``: the job's cancellation was requested.

    A job whose model or server died counts the attempt, since it may have been the cause.
    """
    message = str(error)
    if error.status == "INVALID_ARGUMENT":
        code = INVALID_IMAGE if message.startswith(_IMAGE_FIELDS) else INVALID_FIELD
        return Failure(Verdict.FAIL, JobError(message=message, code=code))
    failed = JobError(message=message, code=SERVER_ERROR)
    if any(text in message for text in _NOT_STARTED) and error.status in ("UNAVAILABLE", "NOT_FOUND"):
        return Failure(Verdict.HAND_BACK, failed)
    if error.status == "NOT_FOUND":
        return Failure(Verdict.FAIL, JobError(message=message, code=INVALID_FIELD))
    if error.status == "CANCELLED":
        return Failure(Verdict.CANCELLED if cancelled else Verdict.FAIL, failed)
    if error.status == "INTERNAL" and not any(text in message for text in _PROCESS_DIED):
        return Failure(Verdict.FAIL, failed)
    return Failure(Verdict.RETRY, failed)


def bill_of(job: Job, outputs: Mapping[str, Any]) -> Bill:
    """Return the bill of a job that has run to its end: of what was drawn, not of what was estimated."""
    work = work_of_parameters(outputs["parameters"], job.images)
    return Bill(
        megapixel_steps=work.megapixel_steps, image_steps=work.image_steps, engine_seconds=outputs["run_seconds"]
    )


def partial_bill(job: Job, progress: Progress | None) -> Bill | None:
    """Return the bill of a cancelled job: the steps that were made; None if there were none."""
    if progress is None or progress.step == 0 or progress.steps == 0:
        return None
    part = min(1.0, progress.step / progress.steps)
    return Bill(megapixel_steps=job.work * part, image_steps=progress.step, engine_seconds=0.0)


def result_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs that a job's result keeps, with ``parameters`` as values; images are kept in the store."""
    return {name: outputs[name] for name in _KEPT_OUTPUTS} | {"parameters": json.loads(outputs["parameters"])}
