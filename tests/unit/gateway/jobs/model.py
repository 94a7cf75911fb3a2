"""A model of a job table: what it promises of jobs, leases, keys and fairness, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

from triton_diffusers.gateway.jobs.job import Claim, JobState, Lease
from triton_diffusers.gateway.jobs.settings import JobTableSettings

OWNERS = ("ann", "bob", "cid")
# Short, so that few ticks of a history are enough to end them.
LEASE_SECONDS, WAIT_SECONDS, GRACE_SECONDS, KEY_SECONDS = 9.0, 6.0, 3.0, 20.0
MAX_ATTEMPTS = 2
MAX_TICK = 5.0
SETTINGS = JobTableSettings(lease_seconds=LEASE_SECONDS, max_attempts=MAX_ATTEMPTS, idempotency_seconds=KEY_SECONDS)


@dataclass
class ModelJob:
    """A job as the model has it."""

    id: str
    number: int
    owner: str
    priority: int
    cost: float
    images: int
    fingerprint: str
    waits_until: float | None
    callers: int
    state: JobState = JobState.QUEUED
    attempts: int = 0
    epoch: int = 0
    lease: Lease | None = None
    runner: str = ""
    lease_until: float = 0.0
    cancel_requested: bool = False
    ended_by: Lease | None = None
    abandoned_at: float | None = None
    ends: int = 0

    def end(self, state: JobState) -> None:
        assert not self.state.has_ended
        self.state, self.lease, self.abandoned_at, self.waits_until, self.callers = state, None, None, None, 0
        self.ends += 1

    def requeue(self, attempts: int) -> None:
        if self.cancel_requested:
            self.end(JobState.CANCELLED)
        else:
            self.state, self.lease, self.attempts, self.runner = JobState.QUEUED, None, attempts, ""

    def give_up_attempt(self) -> None:
        if self.attempts < MAX_ATTEMPTS or self.cancel_requested:
            self.requeue(self.attempts)
        else:
            self.end(JobState.DEAD)


@dataclass
class Fairness:
    """Service of pairs of owners since they were last both backlogged, whose differences are bounded.

    By start-time fair queuing, an owner is ahead of its virtual time by its latest job at most: so one of a pair has at
    most its latest job and the one that the other had begun before more than the other.
    """

    latest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(OWNERS, 0.0))
    service: dict[tuple[str, str], float] = field(default_factory=dict)
    lead: dict[tuple[str, str], float] = field(default_factory=dict)

    def backlog(self, backlogged: set[str]) -> None:
        """Forget pairs of which one has nothing to wait for."""
        for pair in [pair for pair in self.service if not set(pair) <= backlogged]:
            del self.service[pair]
        for one, other in permutations(backlogged, 2):
            if (one, other) not in self.service:
                self.service[one, other], self.lead[one, other] = 0.0, self.latest[other]

    def serve(self, owner: str, cost: float) -> None:
        """Count a claim, and check the bound."""
        self.latest[owner] = cost
        for one, other in self.service:
            if owner in (one, other):
                self.service[one, other] += cost if owner == one else -cost
                more, bound = self.service[one, other], self.latest[one] + self.lead[one, other]
                assert more <= bound + 1e-6, f"{one} was served {more} more than {other}, not {bound}"


@dataclass
class TableModel:
    """The jobs of a table and what has been acknowledged of them, at a time of the table's own clock."""

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    keys: dict[tuple[str, str], tuple[str, str, float]] = field(default_factory=dict)
    bills: list[tuple[str, JobState]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    fairness: Fairness = field(default_factory=Fairness)
    uptime: float = 0.0

    def add(self, job: ModelJob, key: str) -> None:
        """Accept a job, with the idempotency key that names it, if there is one."""
        assert job.id not in self.jobs
        self.jobs[job.id] = job
        if key:
            self.keys[job.owner, key] = (job.fingerprint, job.id, self.uptime + KEY_SECONDS)

    def reuses_key(self, owner: str, key: str, fingerprint: str) -> bool:
        """Return True if a key names a job with another request."""
        known = self.keys.get((owner, key))
        valid = known is not None and known[2] > self.uptime and known[1] in self.jobs
        return bool(key and valid and known is not None and known[0] != fingerprint)

    def same_job(self, owner: str, key: str, fingerprint: str) -> ModelJob | None:
        """Return the job that a submission repeats or joins."""
        if key:
            found = self.keys.get((owner, key))
            return self.jobs.get(found[1]) if found is not None and found[2] > self.uptime else None
        same = [
            job
            for job in self.jobs.values()
            if fingerprint
            and (job.owner, job.fingerprint) == (owner, fingerprint)
            and not job.state.has_ended
            and not job.cancel_requested
        ]
        return min(same, key=lambda job: job.number, default=None)

    def cancel(self, job: ModelJob) -> None:
        """Cancel a job: a queued one at once."""
        if job.state == JobState.QUEUED:
            job.end(JobState.CANCELLED)
        elif job.state == JobState.RUNNING and not job.cancel_requested:
            job.cancel_requested, job.abandoned_at = True, None

    def claim(self, claims: Sequence[Claim], runner: str, max_images: int) -> None:
        """Hand out jobs, and check that it is their turn and that they fit."""
        room = max_images
        for number, claim in enumerate(claims):
            job = self.jobs[claim.job.id]
            assert number == 0 or job.images <= room, "a claim has more images than there is room for"
            room -= job.images
            self._start(job, claim, runner)
        assert room <= 0 or not claims or self._fits_none(room), "a runner was left without work"
        assert claims or not self.queued(), "a runner was sent away from a queue"
        self.leases += [claim.lease for claim in claims]

    def _start(self, job: ModelJob, claim: Claim, runner: str) -> None:
        assert job.state == JobState.QUEUED, "a job was claimed that was not in the queue"
        assert job is self._head(job.owner), "a job has overtaken another of its owner"
        assert claim.lease.epoch > job.epoch, "an epoch was given twice"
        self.fairness.serve(job.owner, job.cost)
        job.state, job.attempts, job.epoch = JobState.RUNNING, job.attempts + 1, claim.lease.epoch
        job.lease, job.runner, job.lease_until = claim.lease, runner, self.uptime + LEASE_SECONDS
        assert (claim.job.attempts, claim.job.runner, claim.job.state) == (job.attempts, runner, JobState.RUNNING)
        self.note_backlog()

    def _head(self, owner: str) -> ModelJob | None:
        return min(self.queued(owner), key=lambda job: (-job.priority, job.number), default=None)

    def _fits_none(self, room: int) -> bool:
        # Which owner was next is not known here, so any job that is too large excuses the claim.
        heads = [head for owner in OWNERS if (head := self._head(owner)) is not None]
        return not heads or any(head.images > room for head in heads)

    def queued(self, owner: str | None = None) -> list[ModelJob]:
        """Return the jobs in the queue, of one owner if one is named."""
        queued = [job for job in self.jobs.values() if job.state == JobState.QUEUED]
        return [job for job in queued if owner in (None, job.owner)]

    def note_backlog(self) -> None:
        """Note which owners wait, after a change of the queue."""
        self.fairness.backlog({job.owner for job in self.queued()})

    def holder(self, lease: Lease) -> ModelJob | None:
        """Return the job that a lease holds."""
        job = self.jobs.get(lease.job_id)
        return job if job is not None and job.lease == lease else None

    def lease(self, chosen: tuple[bool, int]) -> Lease:
        """Return a lease by number: one that holds a job, if so chosen and there is one, or any ever given."""
        current, number = chosen
        held = [job.lease for job in self.jobs.values() if job.lease is not None]
        among = held if current and held else self.leases
        return among[-1 - number % len(among)]

    def end(self, job: ModelJob, how: str) -> None:
        """End a job, or its attempt, as its runner has said."""
        lease = job.lease
        if how == "retry":
            job.give_up_attempt()
        elif job.cancel_requested or how == "cancelled":
            self._end_with_bill(job, JobState.CANCELLED)
        else:
            self._end_with_bill(job, JobState.SUCCEEDED if how == "finish" else JobState.FAILED)
        job.ended_by = lease if job.state.has_ended else None
        self.note_backlog()

    def _end_with_bill(self, job: ModelJob, state: JobState) -> None:
        job.end(state)
        self.bills.append((job.id, state))

    def release(self, lease: Lease) -> None:
        """Hand a job back, if the lease holds one."""
        if (job := self.holder(lease)) is not None:
            job.requeue(job.attempts - 1)
            self.fairness = Fairness(latest=self.fairness.latest)

    def pass_time(self, seconds: float) -> None:
        """Move the clock on, as far as one sweep does, and end what is due."""
        self.uptime += min(max(0.0, seconds), MAX_TICK)
        for job in self.jobs.values():
            if job.state == JobState.RUNNING and job.lease_until <= self.uptime:
                job.give_up_attempt()
        for job in self.jobs.values():
            if job.state == JobState.QUEUED and job.waits_until is not None and job.waits_until <= self.uptime:
                job.end(JobState.EXPIRED)
        for job in self.jobs.values():
            if job.abandoned_at is not None and job.abandoned_at <= self.uptime:
                self.cancel(job)
        self.note_backlog()
