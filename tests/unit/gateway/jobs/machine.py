"""A state machine that drives a job table at random and compares it with a model of what it promises."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule

from tests.unit.gateway.jobs.model import (
    GRACE_SECONDS,
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    OWNERS,
    SETTINGS,
    WAIT_SECONDS,
    ModelJob,
    TableModel,
)
from tests.unit.gateway.jobs.observer import Observer
from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, START, Table, new_job
from triton_diffusers.gateway.jobs.errors import JobNotFound, KeyReused, LeaseLost, NotDead, StillInFlight
from triton_diffusers.gateway.jobs.job import JobError, JobState, NewWebhook, Report
from triton_diffusers.gateway.jobs.stores import open_store

RUNNERS = ("r1", "r2")
ERROR = JobError(message="broken", code=462)
HOOK = NewWebhook(
    url="https://a.example/", host="a.example", events=(JobState.SUCCEEDED, JobState.CANCELLED, JobState.DEAD)
)
# Memory, where there is one to write to: thousands of histories need not wait for a disk.
_SHM = Path("/dev/shm")


class JobTableMachine(RuleBasedStateMachine):
    """Owners, runners and a clock that do whatever they like to one table, through two processes."""

    ids = Bundle("ids")
    # Of PostgreSQL, with two stores and an observer that all histories share; none: a new file of SQLite.
    shared: tuple[Any, ...] = ()
    observer: Observer

    def __init__(self) -> None:
        super().__init__()
        self.model = TableModel()
        self.ticked, self.now = START, START
        self._folder = None
        if self.shared:
            self.observer.empty()
            self.tables = [Table(store) for store in self.shared]
        else:
            self._folder = tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None)
            self._where = f"sqlite:///{self._folder.name}/jobs.sqlite"
            self.tables = [self._open(), self._open()]
            self.observer = Observer(self._where)

    def _open(self) -> Table:
        return Table(open_store(self._where, SETTINGS), self.now)

    def teardown(self) -> None:
        if self._folder is not None:
            self.observer.close()
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
        max_wait=st.sampled_from((None, None, WAIT_SECONDS)),
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
                webhook=HOOK,
            )
            for priority, work, images in shapes
        ]
        if self.model.reuses_key(owner, key, fingerprint):
            try:
                self._store(process).submit(owner, new)
            except KeyReused:
                return multiple()
            raise AssertionError("a key was taken for another request")
        made = []
        for (priority, work, images), submitted in zip(shapes, self._store(process).submit(owner, new), strict=True):
            job = submitted.job
            expected = self.model.same_job(owner, key, fingerprint)
            if expected is None:
                assert submitted.created
                accepted = ModelJob(
                    id=job.id,
                    number=job.number,
                    owner=owner,
                    priority=priority,
                    cost=work / weight,
                    images=images,
                    fingerprint=fingerprint,
                    waits_until=None if max_wait is None else self.model.uptime + max_wait,
                    callers=int(waiting),
                )
                self.model.add(accepted, key)
                made.append(job.id)
            else:
                assert (submitted.created, job.id) == (False, expected.id)
                if waiting and not expected.state.has_ended:
                    expected.callers, expected.abandoned_at = expected.callers + 1, None
        self.model.note_backlog()
        return multiple(*made)

    @precondition(lambda self: self.model.jobs)
    @rule(process=process, running=st.booleans(), number=st.integers(0, 30))
    def cancel(self, process, running, number):  # type: ignore[no-untyped-def]
        jobs = list(self.model.jobs.values())
        among = [job for job in jobs if running and job.lease is not None] or jobs
        job = among[number % len(among)]
        self._store(process).cancel(job.owner, job.id)
        self.model.cancel(job)
        self.model.note_backlog()

    @rule(process=process, job_id=ids)
    def leave(self, process, job_id):  # type: ignore[no-untyped-def]
        self._store(process).leave(job_id, GRACE_SECONDS)
        job = self.model.jobs.get(job_id)
        if job is not None and job.callers > 0 and not job.cancel_requested and not job.state.has_ended:
            job.callers -= 1
            if job.callers == 0:
                job.abandoned_at = self.model.uptime + GRACE_SECONDS

    @rule(process=process, job_id=ids, is_dead=st.booleans())
    def rerun(self, process, job_id, is_dead):  # type: ignore[no-untyped-def]
        dead = [job.id for job in self.model.jobs.values() if is_dead and job.state == JobState.DEAD]
        job_id = dead[0] if dead else job_id
        try:
            self._store(process).rerun(None, job_id)
        except JobNotFound:
            assert job_id in self.model.deleted
        except NotDead:
            assert self.model.jobs[job_id].state != JobState.DEAD
        else:
            job = self.model.jobs[job_id]
            assert job.state == JobState.DEAD
            job.state, job.attempts, job.ends, job.runner = JobState.QUEUED, 0, 0, ""
        self.model.note_backlog()

    @rule(process=process, job_id=ids)
    def delete(self, process, job_id):  # type: ignore[no-untyped-def]
        try:
            self._store(process).delete(None, job_id)
        except JobNotFound:
            assert job_id in self.model.deleted
        except StillInFlight:
            assert not self.model.jobs[job_id].state.has_ended
        else:
            assert self.model.jobs.pop(job_id).state.has_ended
            self.model.deleted.add(job_id)

    @rule(process=process)
    def read_jobs(self, process):  # type: ignore[no-untyped-def]
        jobs = self._store(process).get_many([*self.model.jobs, *self.model.deleted])
        assert {job.id: job.state for job in jobs} == {job.id: job.state for job in self.model.jobs.values()}

    # Runners.

    @rule(process=process, runner=st.sampled_from(RUNNERS), max_images=st.integers(1, 6))
    def claim(self, process, runner, max_images):  # type: ignore[no-untyped-def]
        self._claim(process, runner, max_images)

    def _claim(self, process: int, runner: str, max_images: int) -> None:
        self.model.claim(self._store(process).claim(runner, "default", [MODEL], max_images), runner, max_images)

    @precondition(lambda self: self.model.leases)
    @rule(process=process, chosen=st.lists(lease, min_size=1, max_size=3))
    def renew(self, process, chosen):  # type: ignore[no-untyped-def]
        some = [self.model.lease(each) for each in chosen]
        signals = self._store(process).renew([Report(lease=lease) for lease in some])
        expected_lost, expected_cancelled = [], []
        for lease in some:
            job = self.model.holder(lease)
            if job is None:
                expected_lost.append(lease.job_id)
            else:
                job.lease_until = self.model.uptime + LEASE_SECONDS
                if job.cancel_requested:
                    expected_cancelled.append(lease.job_id)
        assert sorted(signals.lost) == sorted(expected_lost)
        assert sorted(signals.cancelled) == sorted(expected_cancelled)

    @precondition(lambda self: self.model.leases)
    @rule(process=process, chosen=lease, how=st.sampled_from(("finish", "finish", "fail", "retry", "cancelled")))
    def end(self, process, chosen, how):  # type: ignore[no-untyped-def]
        store, lease = self._store(process), self.model.lease(chosen)
        calls = {
            "finish": lambda: store.finish(lease, RESULT, BILL),
            "fail": lambda: store.fail(lease, ERROR, retryable=False, bill=BILL),
            "retry": lambda: store.fail(lease, ERROR, retryable=True),
            "cancelled": lambda: store.finish_cancelled(lease, BILL),
        }
        job = self.model.holder(lease)
        known = self.model.jobs.get(lease.job_id)
        before = known and known.state
        try:
            done = calls[how]()
        except LeaseLost:
            assert job is None, "the holder of a lease was refused"
            return
        if job is None:
            # A repetition of the call that has ended the job.
            assert known is not None
            assert before is not None
            assert before.has_ended
            assert lease == known.ended_by, "a lost lease was taken for good"
            assert done.state == before
            return
        self.model.end(job, how)
        assert done.state == job.state
        assert (done.result is not None) == (job.state == JobState.SUCCEEDED)

    @precondition(lambda self: self.model.leases)
    @rule(process=process, chosen=st.lists(lease, min_size=1, max_size=3))
    def release(self, process, chosen):  # type: ignore[no-untyped-def]
        some = [self.model.lease(each) for each in chosen]
        self._store(process).release(some)
        for lease in some:
            self.model.release(lease)
        self.model.note_backlog()

    @rule(process=process, runner=st.sampled_from(RUNNERS))
    def kill_runner(self, process, runner):  # type: ignore[no-untyped-def]
        self._kill_runner(process, runner)

    def _kill_runner(self, process: int, runner: str) -> None:
        jobs = self.model.jobs.values()
        lost = [job for job in jobs if job.state == JobState.RUNNING and job.runner == runner]
        assert len(self._store(process).forget_runner(runner)) == len(lost)
        for job in lost:
            job.give_up_attempt()
        self.model.note_backlog()

    @rule(process=process, runner=st.sampled_from(RUNNERS), max_images=st.integers(1, 6))
    def crash_loop(self, process, runner, max_images):  # type: ignore[no-untyped-def]
        for _ in range(MAX_ATTEMPTS):
            self._claim(process, runner, max_images)
            self._kill_runner(process, runner)

    # Time.

    @rule(process=process, seconds=st.sampled_from((1.0, 3.0, 4.0, 4.0, 4.0)), times=st.sampled_from((1, 2, 3)))
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
        self.model.pass_time(self.now - self.ticked)
        self.ticked = self.now

    @precondition(lambda self: not self.shared)
    @rule(process=process)
    def restart(self, process):  # type: ignore[no-untyped-def]
        self.tables[process].store.close()
        self.tables[process] = self._open()

    @invariant()
    def table_is_as_the_model_has_it(self) -> None:
        found, model = self.observer.look(), self.model
        assert found.jobs.keys() == model.jobs.keys(), "jobs were lost"
        for job in model.jobs.values():
            ended, succeeded = job.state.has_ended, job.state == JobState.SUCCEEDED
            expected = (job.state, job.attempts, job.runner, job.cancel_requested, succeeded, ended)
            assert found.jobs[job.id] == expected
            assert job.ends == int(ended), "a job has ended more than once"
        assert found.bills == model.bills
        answered = sorted(job.id for job in model.jobs.values() if job.state.has_ended and job.state != "cancelled")
        assert sorted(found.sink_entries) == answered, "a sink has not each answer once"
        wanted = sorted(job.id for job in model.jobs.values() if job.state in HOOK.events)
        assert sorted(found.messages) == wanted, "a webhook has not each end that it wants"
        queued = {owner: len(model.queued(owner)) for owner in OWNERS if model.queued(owner)}
        assert found.queued == queued, "the queue was not counted well"
