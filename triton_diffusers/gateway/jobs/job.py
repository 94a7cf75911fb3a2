"""Rows of the job table as its users see them. Times are seconds since the epoch, by the database's clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = Mapping[str, Any]

DEFAULT_POOL = "default"
MAX_NUMBER = 2**63 - 1
"""Largest number of a job or an event that the databases take."""


class JobState(StrEnum):
    """State of a job; it changes as ``docs/job-table.md`` draws."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def has_ended(self) -> bool:
        """True if the job will not change any more (a dead one can be queued again by ``rerun``)."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that belong to a job: an input image, a preview."""

    data: bytes
    media_type: str = "application/octet-stream"


class WebhookState(StrEnum):
    """State of a webhook. ``NONE``: there is nothing to deliver, yet or at all."""

    NONE = "none"
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A URL to be called when a job ends in one of the states ``events``; ``base_url`` is of the message's links."""

    url: str
    host: str
    events: Collection[JobState]
    base_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A job's webhook as it is now; ``message_id`` is that of all its deliveries.

    ``status`` (0: no answer) and ``error`` are of the last attempt; ``settled`` is the time when it was the last one.
    """

    url: str
    base_url: str
    events: Collection[JobState]
    state: WebhookState
    message_id: str
    attempts: int
    status: int
    error: str
    settled: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A request to be accepted. All of it has been checked, and its seed is drawn.

    ``pool`` names the runners that may serve it, which share their time fairly among the owners; ``model`` is one of
    the models that they serve. ``work`` is its cost (image steps times megapixels), divided by the owner's ``weight``.

    A second job with the same ``idempotency_key`` of one owner is the first one, for as long as the keys are kept;
    a different ``fingerprint`` (hash of path and body) is then an error. Without a key, a job whose ``fingerprint`` is
    that of a job in flight of the owner joins it; empty: never. ``waiting`` counts a synchronous caller, see ``leave``.
    ``sink`` names the sink to which the job is appended when it ends; empty: none. ``webhook`` is called then. The job
    counts for the bounds of its owner, of its ``team`` and of the key ``key_id``, if it has them.
    """

    model: str
    request: JsonObject
    work: float
    images: int = 1
    pool: str = DEFAULT_POOL
    weight: float = 1.0
    priority: int = 0
    label: str = ""
    dialect: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Blob] = field(default_factory=dict)
    idempotency_key: str = ""
    fingerprint: str = ""
    waiting: bool = False
    max_wait_seconds: float | None = None
    traceparent: str = ""
    sink: str = ""
    webhook: NewWebhook | None = None
    team: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a running job."""

    step: int = 0
    steps: int = 0
    images_done: int = 0

    @property
    def fraction(self) -> float:
        """Return the finished part of the steps, from 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Reason why a job has no result: a code of the API's statuses (0: none) and a text for the caller."""

    message: str
    code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is now. ``number`` grows in the order of acceptance; ``event`` is the number of its last event."""

    id: str
    number: int
    owner: str
    model: str
    pool: str
    request: JsonObject
    work: float
    images: int
    priority: int
    label: str
    dialect: str
    tags: Mapping[str, str]
    sink: str
    traceparent: str
    state: JobState
    attempts: int
    runner: str
    cancel_requested: bool
    created: float
    started: float | None
    ended: float | None
    progress: Progress
    event: int
    result: JsonObject | None
    error: JobError | None
    webhook: Webhook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInFlight:
    """A queued or running job, without its content."""

    id: str
    number: int
    state: JobState
    priority: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """Outcome of a submission: the job, and False in ``created`` if it is an earlier one."""

    job: Job
    created: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Right to run a job until it expires, unless it is renewed. A later claim of the job has a higher ``epoch``."""

    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job handed to a runner."""

    job: Job
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """News of a running job; None: unchanged."""

    lease: Lease
    progress: Progress | None = None
    preview: Blob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Ids of reported jobs that need the runner's attention.

    ``lost``: the lease is gone, drop the job without a word. ``cancelled``: stop, then call ``finish_cancelled``.
    ``previews_wanted``: somebody looks at it now.
    """

    lost: Sequence[str] = ()
    cancelled: Sequence[str] = ()
    previews_wanted: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Cost of an ended job, written to the ledger in the transaction that ends it."""

    megapixel_steps: float
    image_steps: int
    engine_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """A bill with its job's particulars; it outlives the job. At most one for each job."""

    number: int
    job_id: str
    owner: str
    team: str
    key_id: str
    model: str
    pool: str
    tags: Mapping[str, str]
    state: JobState
    at: float
    run_seconds: float
    work: float
    bill: Bill


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A change of a job. Numbers of one job ascend from 1; only the latest ``progress`` event is kept."""

    job_id: str
    number: int
    kind: str
    at: float
    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the jobs asked for, the newest first. ``cursor`` continues after the last one; None: it was the last."""

    jobs: Sequence[Job]
    cursor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Place of a queued job: jobs that will be claimed before it, and an estimate of its wait if there is one.

    It is an estimate because jobs of owners with less service go first even if they arrive later.
    """

    ahead: int
    wait_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Jobs in flight of an owner, over all pools."""

    queued: int = 0
    queued_work: float = 0.0
    running: int = 0
    running_work: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLimits:
    """Bounds of what an owner may have in flight, checked when jobs are accepted. None: unbounded."""

    max_jobs: int | None = None
    max_work: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """Load of a pool, for metrics and scaling.

    ``work_per_second`` is the recent speed of one running job (None: unknown).
    """

    pool: str
    queued: int
    queued_work: float
    running: int
    running_work: float
    oldest_wait_seconds: float
    work_per_second: float | None
