"""Jobs as the native dialect shows them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.jobs.job import Job, JobState, PoolLoad, Position, WebhookState
from triton_diffusers.gateway.results import CONTROL_IMAGE, IMAGE, Results, files_of


class ErrorView(BaseModel):
    """An error: ``field``, ``value`` and ``rule`` are of an invalid field."""

    type: str
    code: int
    message: str
    field: str | None = None
    value: str | None = None
    rule: str | None = None

    @classmethod
    def from_fault(cls, fault: Fault) -> ErrorView:
        """Return the view of a fault."""
        return cls(
            type=fault.type,
            code=fault.code,
            message=fault.message,
            field=fault.field or None,
            value=fault.value or None,
            rule=fault.rule or None,
        )


class ErrorReply(BaseModel):
    """The body of every reply with an error status."""

    error: ErrorView


class ProgressView(BaseModel):
    """Sampling steps of all images together, and finished images."""

    step: int
    steps: int
    images_done: int
    fraction: float


class PositionView(BaseModel):
    """Place in the queue: jobs ahead, and the estimated wait."""

    ahead: int
    wait_seconds: float | None


class ImageView(BaseModel):
    """A result image."""

    url: str
    media_type: str
    is_nsfw: bool = False


class ResultView(BaseModel):
    """The result of a job that has succeeded."""

    images: list[ImageView]
    control_images: list[ImageView]
    oss_url: list[str]
    seed: str
    prompt: str
    parameters: dict[str, Any] = Field(description="The fields that make the first image again.")
    profile: str
    use_blade: bool
    queue_seconds: float
    run_seconds: float


class WebhookView(BaseModel):
    """A job's webhook. ``status`` (0: no answer) and ``error`` are of the last attempt of this message."""

    url: str
    events: list[JobState]
    state: WebhookState
    message_id: str | None = Field(description="The header `webhook-id` of all deliveries.")
    attempts: int
    status: int
    error: str | None
    settled: float | None


class JobView(BaseModel):
    """A job. Times are seconds since the epoch; ``work`` is in megapixel-steps."""

    id: str
    state: JobState
    task_id: str = Field(description="The caller's label, or a random one.")
    model: str
    priority: int
    image_num: int
    work: float
    attempts: int
    cancel_requested: bool
    created: float
    started: float | None
    ended: float | None
    progress: ProgressView
    position: PositionView | None
    result: ResultView | None
    error: ErrorView | None
    webhook: WebhookView | None
    warnings: list[str]
    links: dict[str, str]


class JobList(BaseModel):
    """Jobs; ``cursor`` asks for the following ones."""

    jobs: list[JobView]
    cursor: int | None = None


class QueueView(BaseModel):
    """The load of one pool of runners, of all owners together."""

    pool: str
    queued: int
    queued_work: float
    running: int
    running_work: float
    oldest_wait_seconds: float
    work_per_second: float | None

    @classmethod
    def from_load(cls, load: PoolLoad) -> QueueView:
        """Return the view of a pool's load."""
        return cls(**{name: getattr(load, name) for name in cls.model_fields})


def job_view(job: Job, results: Results, base_url: str, position: Position | None = None) -> JobView:
    """Return the view of a job; ``position`` is its place in the queue."""
    path = f"{base_url}/api/jobs/{job.id}"
    return JobView(
        id=job.id,
        state=job.state,
        task_id=job.label,
        model=job.model,
        priority=job.priority,
        image_num=job.images,
        work=job.work,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        created=job.created,
        started=job.started,
        ended=job.ended,
        progress=_progress_view(job),
        position=PositionView(ahead=position.ahead, wait_seconds=position.wait_seconds) if position else None,
        result=_result_view(job, results, base_url),
        error=_error_view(job),
        webhook=_webhook_view(job),
        warnings=[*job.request["warnings"], *(job.result["outputs"]["warnings"] if job.result else ())],
        links={name: f"{path}{suffix}" for name, suffix in _LINKS.items()},
    )


def _progress_view(job: Job) -> ProgressView:
    """Return the last progress that the runner reported; all of it once the job has succeeded."""
    last = job.progress
    if job.state is JobState.SUCCEEDED:
        return ProgressView(step=last.steps, steps=last.steps, images_done=job.images, fraction=1.0)
    return ProgressView(step=last.step, steps=last.steps, images_done=last.images_done, fraction=last.fraction)


_LINKS = {"self": "", "events": "/events", "preview": "/preview", "cancel": "/cancel"}
_OUTPUTS = ("seed", "prompt", "parameters", "profile", "use_blade", "queue_seconds", "run_seconds")


def _result_view(job: Job, results: Results, base_url: str) -> ResultView | None:
    if job.result is None:
        return None
    outputs: dict[str, Any] = job.result["outputs"]
    flagged = iter(outputs["is_nsfw"])
    views: dict[str, list[ImageView]] = {IMAGE: [], CONTROL_IMAGE: []}
    for file, url in zip(files_of(job), results.urls(job, base_url), strict=True):
        is_nsfw = file["kind"] == IMAGE and next(flagged)
        views[file["kind"]].append(ImageView(url=url, media_type=file["media_type"], is_nsfw=is_nsfw))
    return ResultView(
        images=views[IMAGE],
        control_images=views[CONTROL_IMAGE],
        oss_url=results.places(job),
        **{name: outputs[name] for name in _OUTPUTS},
    )


def _error_view(job: Job) -> ErrorView | None:
    if job.error is None:
        return None
    return ErrorView(type=job.state.value, code=job.error.code, message=job.error.message)


def _webhook_view(job: Job) -> WebhookView | None:
    webhook = job.webhook
    if webhook is None:
        return None
    return WebhookView(
        url=webhook.url,
        events=list(webhook.events),
        state=webhook.state,
        message_id=webhook.message_id or None,
        attempts=webhook.attempts,
        status=webhook.status,
        error=webhook.error or None,
        settled=webhook.settled,
    )
