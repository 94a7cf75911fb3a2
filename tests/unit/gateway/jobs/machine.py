"""A state machine that drives a job table at random and compares it with a model of what it promises."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, START, Table, new_job
from triton_diffusers.gateway.jobs import queries
from triton_diffusers.gateway.jobs.database import Session
from triton_diffusers.gateway.jobs.errors import JobNotFound, KeyReused, LeaseLost, NotDead, StillInFlight
from triton_diffusers.gateway.jobs.job import Claim, JobError, JobState, Lease, Report
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

OWNERS = ("ann", "bob", "cid")
RUNNERS = ("r1", "r2")
LEASE_SECONDS, MAX_ATTEMPTS, GRACE_SECONDS, KEY_SECONDS = 30.0, 2, 5.0, 100.0
MAX_TICK = 5.0
SETTINGS = JobTableSettings(lease_seconds=LEASE_SECONDS, max_attempts=MAX_ATTEMPTS, idempotency_seconds=KEY_SECONDS)
ERROR = JobError(message="broken", code=462)
# Memory, where there is one to write to: thousands of histories need not wait for a disk.
_SHM = Path("/dev/shm")


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
    """Service of owners since they were last both backlogged, whose differences are bounded."""

    since: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def backlog(self, backlogged: set[str]) -> None:
        """Forget pairs of which one has nothing to wait for."""
        for pair in [pair for pair in self.since if not set(pair) <= backlogged]:
            del self.since[pair]
        for pair in ((a, b) for a in OWNERS for b in OWNERS if a < b and {a, b} <= backlogged):
            self.since.setdefault(pair, dict.fromkeys(pair, 0.0))

    def enter(self, owner: str, cost: float) -> None:
        """Count a job that an owner has submitted."""
        self.largest[owner] = max(cost, self.largest.get(owner, 0.0))

    def serve(self, owner: str, cost: float) -> None:
        """Count a claim, and check the bound of start-time fair queuing."""
        for (a, b), service in self.since.items():
            if owner in (a, b):
                service[owner] += cost
                bound = self.largest[a] + self.largest[b]
                assert abs(service[a] - service[b]) <= bound + 1e-6, f"{a} and {b} were served {service}"


class JobTableMachine(RuleBasedStateMachine):
    """Owners, runners and a clock that do whatever they like to one table, through two processes."""

    ids = Bundle("ids")
    # Of PostgreSQL, with two stores that all histories share; None: a new file of SQLite.
    url: str | None = None
    shared: tuple[Any, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, ModelJob] = {}
        self.deleted: set[str] = set()
        self.keys: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.bills: list[tuple[str, JobState]] = []
        self.leases: list[Lease] = []
        self.fairness = Fairness()
        self.uptime, self.ticked, self.now = 0.0, START, START
        self._folder = None
        if self.url is None:
            self._folder = tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None)
            self._where = f"sqlite:///{self._folder.name}/jobs.sqlite"
            self.tables = [self._open(), self._open()]
        else:
            empty(self.url)
            self.tables = [Table(store) for store in self.shared]

    def _open(self) -> Table:
        return Table(open_store(self._where, SETTINGS), self.now)

    def teardown(self) -> None:
        if self._folder is not None:
            for table in self.tables:
                table.store.close()
            self._folder.cleanup()

    process = st.integers(0, 1)
    # Mostly something that can still happen, sometimes something of the past.
    lease = st.tuples(st.sampled_from((True, True, False)), st.integers(0, 8))

    def _store(self, process: int) -> Any:
        return self.tables[process].store

    # Owners.

    @rule(
        target=ids,
        process=process,
        owner=st.sampled_from(OWNERS),
        shapes=st.lists(
            st.tuples(st.sampled_from((0, 0, 1)), st.sampled_from((1.0, 1.0, 2.0, 8.0)), st.integers(1, 3)),
            min_size=1,
            max_size=4,
        ),
        weight=st.sampled_from((1.0, 1.0, 2.0)),
        key=st.sampled_from(("", "", "", "k1", "k2")),
        fingerprint=st.sampled_from(("", "", "f1", "f2")),
        waiting=st.booleans(),
        max_wait=st.sampled_from((None, None, 20.0)),
    )
    def submit(self, process, owner, shapes, weight, key, fingerprint, waiting, max_wait):  # type: ignore[no-untyped-def]
        new = [
            new_job(
                priority=priority,
                work=work,
                weight=weight,
                images=images,
                idempotency_key=key,
                fingerprint=fingerprint,
                waiting=waiting,
                max_wait_seconds=max_wait,
                sink=owner,
            )
            for priority, work, images in shapes
        ]
        known = self.keys.get((owner, key))
        valid = known is not None and known[2] > self.uptime and known[1] in self.jobs
        if key and valid and known[0] != fingerprint:
            try:
                self._store(process).submit(owner, new)
            except KeyReused:
                return multiple()
            raise AssertionError("a key was taken for another request")
        made = []
        for (priority, work, images), submitted in zip(shapes, self._store(process).submit(owner, new), strict=True):
            job = submitted.job
            expected = self._same_job(owner, key, fingerprint)
            if expected is None:
                assert submitted.created
                assert job.id not in self.jobs
                waits_until = None if max_wait is None else self.uptime + max_wait
                self.jobs[job.id] = ModelJob(
                    id=job.id,
                    number=job.number,
                    owner=owner,
                    priority=priority,
                    cost=work / weight,
                    images=images,
                    fingerprint=fingerprint,
                    waits_until=waits_until,
                    callers=int(waiting),
                )
                self.fairness.enter(owner, work / weight)
                if key:
                    self.keys[owner, key] = (fingerprint, job.id, self.uptime + KEY_SECONDS)
                made.append(job.id)
            else:
                assert (submitted.created, job.id) == (False, expected.id)
                if waiting and not expected.state.has_ended:
                    expected.callers, expected.abandoned_at = expected.callers + 1, None
        self._backlog()
        return multiple(*made)

    def _same_job(self, owner: str, key: str, fingerprint: str) -> ModelJob | None:
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

    @precondition(lambda self: self.jobs)
    @rule(process=process, running=st.booleans(), number=st.integers(0, 30))
    def cancel(self, process, running, number):  # type: ignore[no-untyped-def]
        among = [job for job in self.jobs.values() if running and job.lease is not None] or list(self.jobs.values())
        job = among[number % len(among)]
        self._store(process).cancel(job.owner, job.id)
        self._cancel(job)
        self._backlog()

    def _cancel(self, job: ModelJob) -> None:
        if job.state == JobState.QUEUED:
            job.end(JobState.CANCELLED)
        elif job.state == JobState.RUNNING and not job.cancel_requested:
            job.cancel_requested, job.abandoned_at = True, None

    @rule(process=process, job_id=ids)
    def leave(self, process, job_id):  # type: ignore[no-untyped-def]
        self._store(process).leave(job_id, GRACE_SECONDS)
        job = self.jobs.get(job_id)
        if job is not None and job.callers > 0 and not job.cancel_requested and not job.state.has_ended:
            job.callers -= 1
            if job.callers == 0:
                job.abandoned_at = self.uptime + GRACE_SECONDS

    @rule(process=process, job_id=ids)
    def rerun(self, process, job_id):  # type: ignore[no-untyped-def]
        try:
            self._store(process).rerun(None, job_id)
        except JobNotFound:
            assert job_id in self.deleted
        except NotDead:
            assert self.jobs[job_id].state != JobState.DEAD
        else:
            job = self.jobs[job_id]
            assert job.state == JobState.DEAD
            job.state, job.attempts, job.ends, job.runner = JobState.QUEUED, 0, 0, ""
        self._backlog()

    @rule(process=process, job_id=ids)
    def delete(self, process, job_id):  # type: ignore[no-untyped-def]
        try:
            self._store(process).delete(None, job_id)
        except JobNotFound:
            assert job_id in self.deleted
        except StillInFlight:
            assert not self.jobs[job_id].state.has_ended
        else:
            assert self.jobs.pop(job_id).state.has_ended
            self.deleted.add(job_id)

    # Runners.

    @rule(process=process, runner=st.sampled_from(RUNNERS), max_images=st.integers(1, 6))
    def claim(self, process, runner, max_images):  # type: ignore[no-untyped-def]
        claims = self._store(process).claim(runner, "default", [MODEL], max_images)
        room = max_images
        for number, claim in enumerate(claims):
            job = self.jobs[claim.job.id]
            assert number == 0 or job.images <= room, "a claim has more images than there is room for"
            room -= job.images
            self._start(job, claim, runner)
        assert room <= 0 or not claims or self._fits_none(room), "a runner was left without work"
        assert claims or not self._queued(), "a runner was sent away from a queue"
        self.leases += [claim.lease for claim in claims]

    def _start(self, job: ModelJob, claim: Claim, runner: str) -> None:
        assert job.state == JobState.QUEUED, "a job was claimed that was not in the queue"
        head = min(self._queued(job.owner), key=lambda other: (-other.priority, other.number))
        assert job is head, "a job has overtaken another of its owner"
        assert claim.lease.epoch > job.epoch, "an epoch was given twice"
        self.fairness.serve(job.owner, job.cost)
        job.state, job.attempts, job.epoch = JobState.RUNNING, job.attempts + 1, claim.lease.epoch
        job.lease, job.runner, job.lease_until = claim.lease, runner, self.uptime + LEASE_SECONDS
        assert (claim.job.attempts, claim.job.runner, claim.job.state) == (job.attempts, runner, JobState.RUNNING)
        self._backlog()

    def _fits_none(self, room: int) -> bool:
        # Which owner was next is not known here, so any job that is too large excuses the claim.
        heads = [
            min(self._queued(owner), key=lambda job: (-job.priority, job.number), default=None) for owner in OWNERS
        ]
        return all(head is None for head in heads) or any(head is not None and head.images > room for head in heads)

    def _queued(self, owner: str | None = None) -> list[ModelJob]:
        queued = [job for job in self.jobs.values() if job.state == JobState.QUEUED]
        return [job for job in queued if owner in (None, job.owner)]

    def _backlog(self) -> None:
        self.fairness.backlog({job.owner for job in self._queued()})

    def _holder(self, lease: Lease) -> ModelJob | None:
        job = self.jobs.get(lease.job_id)
        return job if job is not None and job.lease == lease else None

    def _lease(self, chosen: tuple[bool, int]) -> Lease:
        current, number = chosen
        held = [job.lease for job in self.jobs.values() if job.lease is not None]
        among = held if current and held else self.leases
        return among[-1 - number % len(among)]

    @precondition(lambda self: self.leases)
    @rule(process=process, chosen=st.lists(lease, min_size=1, max_size=3))
    def renew(self, process, chosen):  # type: ignore[no-untyped-def]
        some = [self._lease(each) for each in chosen]
        signals = self._store(process).renew([Report(lease=lease) for lease in some])
        expected_lost, expected_cancelled = [], []
        for lease in some:
            job = self._holder(lease)
            if job is None:
                expected_lost.append(lease.job_id)
            else:
                job.lease_until = self.uptime + LEASE_SECONDS
                if job.cancel_requested:
                    expected_cancelled.append(lease.job_id)
        assert sorted(signals.lost) == sorted(expected_lost)
        assert sorted(signals.cancelled) == sorted(expected_cancelled)

    @precondition(lambda self: self.leases)
    @rule(process=process, chosen=lease, how=st.sampled_from(("finish", "finish", "fail", "retry", "cancelled")))
    def end(self, process, chosen, how):  # type: ignore[no-untyped-def]
        store, lease = self._store(process), self._lease(chosen)
        calls = {
            "finish": lambda: store.finish(lease, RESULT, BILL),
            "fail": lambda: store.fail(lease, ERROR, retryable=False, bill=BILL),
            "retry": lambda: store.fail(lease, ERROR, retryable=True),
            "cancelled": lambda: store.finish_cancelled(lease, BILL),
        }
        job = self._holder(lease)
        before = self.jobs[lease.job_id].state if lease.job_id in self.jobs else None
        try:
            done = calls[how]()
        except LeaseLost:
            assert job is None, "the holder of a lease was refused"
            return
        if job is None:
            # A repetition of the call that has ended the job.
            assert before is not None
            assert before.has_ended
            assert lease == self.jobs[lease.job_id].ended_by, "a lost lease was taken for good"
            assert done.state == before
            return
        if how == "retry":
            job.give_up_attempt()
        elif job.cancel_requested or how == "cancelled":
            self._end_with_bill(job, JobState.CANCELLED)
        else:
            self._end_with_bill(job, JobState.SUCCEEDED if how == "finish" else JobState.FAILED)
        job.ended_by = lease if job.state.has_ended else None
        assert done.state == job.state
        assert (done.result is not None) == (job.state == JobState.SUCCEEDED)
        self._backlog()

    def _end_with_bill(self, job: ModelJob, state: JobState) -> None:
        job.end(state)
        self.bills.append((job.id, state))

    @precondition(lambda self: self.leases)
    @rule(process=process, chosen=st.lists(lease, min_size=1, max_size=3))
    def release(self, process, chosen):  # type: ignore[no-untyped-def]
        some = [self._lease(each) for each in chosen]
        self._store(process).release(some)
        for lease in some:
            if (job := self._holder(lease)) is not None:
                job.requeue(job.attempts - 1)
                self.fairness = Fairness(largest=self.fairness.largest)
        self._backlog()

    @rule(process=process, runner=st.sampled_from(RUNNERS))
    def kill_runner(self, process, runner):  # type: ignore[no-untyped-def]
        lost = [job for job in self.jobs.values() if job.state == JobState.RUNNING and job.runner == runner]
        assert self._store(process).forget_runner(runner) == len(lost)
        for job in lost:
            job.give_up_attempt()
        self._backlog()

    # Time.

    @rule(process=process, seconds=st.sampled_from((1.0, 3.0, 4.0, 4.0, 4.0)), times=st.sampled_from((1, 2, 8)))
    def pass_time(self, process, seconds, times):  # type: ignore[no-untyped-def]
        for _ in range(times):
            self._tick(process, seconds)

    @rule(process=process, seconds=st.sampled_from((-7200.0, -31.0, 31.0, 3600.0, 1e8)))
    def step_clock(self, process, seconds):  # type: ignore[no-untyped-def]
        self._tick(process, seconds)

    def _tick(self, process: int, seconds: float) -> None:
        self.now += seconds
        for table in self.tables:
            table.set_clock(self.now)
        self._store(process).sweep()
        self.uptime += min(max(0.0, self.now - self.ticked), MAX_TICK)
        self.ticked = self.now
        for job in self.jobs.values():
            if job.state == JobState.RUNNING and job.lease_until <= self.uptime:
                job.give_up_attempt()
        for job in self.jobs.values():
            if job.state == JobState.QUEUED and job.waits_until is not None and job.waits_until <= self.uptime:
                job.end(JobState.EXPIRED)
        for job in self.jobs.values():
            if job.abandoned_at is not None and job.abandoned_at <= self.uptime:
                self._cancel(job)
        self._backlog()

    @precondition(lambda self: self.url is None)
    @rule(process=process)
    def restart(self, process):  # type: ignore[no-untyped-def]
        self.tables[process].store.close()
        self.tables[process] = self._open()

    @invariant()
    def table_is_as_the_model_has_it(self) -> None:
        found, bills, accounts, entries = self.tables[0].store.database.read(self._contents)
        assert found.keys() == self.jobs.keys(), "jobs were lost"
        for job_id, job in self.jobs.items():
            row = found[job_id]
            assert row.state == job.state
            assert (row.attempts, row.runner, row.cancel_requested) == (job.attempts, job.runner, job.cancel_requested)
            assert job.ends == int(job.state.has_ended), "a job has ended more than once"
            assert (row.result is not None) == (job.state == JobState.SUCCEEDED)
            assert (row.ended is not None) == job.state.has_ended
        assert bills == self.bills
        answered = sorted(job.id for job in self.jobs.values() if job.state.has_ended and job.state != "cancelled")
        assert sorted(entries) == answered, "a sink has not each answer once"
        queued = {owner: len(self._queued(owner)) for owner in OWNERS if self._queued(owner)}
        assert accounts == queued, "the queue was not counted well"

    def _contents(self, session: Session) -> tuple[Any, Any, Any, Any]:
        jobs = queries.get_many(session, [*self.jobs, *self.deleted])
        ledger = queries.ledger(session, None, 0, 1000)
        accounts = session.rows("SELECT owner, queued FROM accounts WHERE queued != 0")
        return (
            {job.id: job for job in jobs},
            [(entry.job_id, entry.state) for entry in ledger],
            {row["owner"]: row["queued"] for row in accounts},
            [row["job_id"] for row in session.rows("SELECT job_id FROM sink_entries")],
        )


def empty(url: str) -> None:
    """Empty the table of a PostgreSQL database."""
    tables = "jobs, requests, results, inputs, previews, events, owners, idempotency_keys, pools, accounts, ledger,"
    tables += " sink_entries, sink_groups, sink_consumers, sink_deliveries"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        connection.execute("UPDATE counters SET value = 0")
        connection.execute("UPDATE clock SET uptime = 0, ticked_at = 0")
