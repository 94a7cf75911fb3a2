"""The job store on a database of SQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from triton_diffusers.gateway.jobs import (
    bounds,
    claims,
    commands,
    fair_queue,
    housekeeping,
    queries,
    submission,
    uptime,
    usage,
)
from triton_diffusers.gateway.jobs.bounds import Bounds, BoundsUse
from triton_diffusers.gateway.jobs.database import Database
from triton_diffusers.gateway.jobs.directory import Directory
from triton_diffusers.gateway.jobs.job import (
    Bill,
    Blob,
    Claim,
    Counters,
    Job,
    JobError,
    JobEvent,
    JobInFlight,
    JobState,
    JsonObject,
    Lease,
    LedgerEntry,
    NewJob,
    OwnerLimits,
    Page,
    PoolLoad,
    Position,
    Report,
    Signals,
    Submitted,
)
from triton_diffusers.gateway.jobs.rows import check_text, select_job, to_json
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.sql_outbox import SqlOutbox
from triton_diffusers.gateway.jobs.sql_sink import SqlSinkStore
from triton_diffusers.gateway.jobs.usage import Usage

_POSITIONS_SECONDS = 1.0
_UNBOUNDED = OwnerLimits()


class SqlJobStore:
    """A ``JobStore`` on a database. Statements are plain SQL, of which the dialects share all but a few words."""

    def __init__(self, database: Database, settings: JobTableSettings) -> None:
        self.database = database
        self.sinks = SqlSinkStore(database)
        self.directory = Directory(database)
        self.outbox = SqlOutbox(database)
        self._settings = settings
        self._positions_lock = threading.Lock()
        self._positions: dict[str, tuple[float, Mapping[str, Position]]] = {}

    def submit(self, owner: str, jobs: Sequence[NewJob], limits: OwnerLimits = _UNBOUNDED) -> Sequence[Submitted]:
        for new in jobs:
            submission.check(owner, new, self._settings)
        return self.database.write(lambda session: submission.submit(session, self._settings, owner, jobs, limits))

    def get(self, owner: str | None, job_id: str) -> Job:
        return self.database.read(lambda session: select_job(session, owner, job_id))

    def get_many(self, job_ids: Collection[str]) -> Sequence[Job]:
        return self.database.read(lambda session: queries.get_many(session, job_ids))

    def event_numbers(self, job_ids: Collection[str]) -> Mapping[str, int]:
        return self.database.read(lambda session: queries.event_numbers(session, job_ids))

    def jobs(
        self,
        owner: str | None,
        states: Collection[JobState] = (),
        label: str | None = None,
        cursor: int | None = None,
        limit: int = 50,
    ) -> Page:
        return self.database.read(lambda session: queries.page(session, owner, states, label, cursor, limit))

    def in_flight(self, owner: str, sink: str) -> Sequence[JobInFlight]:
        return self.database.read(lambda session: queries.in_flight(session, owner, sink))

    def position(self, owner: str | None, job_id: str) -> Position | None:
        job = self.get(owner, job_id)
        if job.state != JobState.QUEUED:
            return None
        with self._positions_lock:
            at, positions = self._positions.get(job.pool, (float("-inf"), {}))
            if time.monotonic() > at + _POSITIONS_SECONDS or job_id not in positions:
                positions = self.database.read(lambda session: queries.positions(session, job.pool))
                self._positions[job.pool] = time.monotonic(), positions
        return positions.get(job_id)

    def cancel(self, owner: str | None, job_id: str) -> Job:
        return self.database.write(lambda session: commands.cancel(session, owner, job_id))

    def leave(self, job_id: str, grace_seconds: float) -> None:
        self.database.write(lambda session: commands.leave(session, job_id, grace_seconds))

    def rerun(self, owner: str | None, job_id: str) -> Job:
        return self.database.write(lambda session: commands.rerun(session, owner, job_id))

    def delete(self, owner: str | None, job_id: str) -> Job:
        return self.database.write(lambda session: commands.delete(session, owner, job_id))

    def events(self, owner: str | None, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        return self.database.read(lambda session: queries.events(session, owner, job_id, after))

    def preview(self, owner: str | None, job_id: str) -> Blob | None:
        return self.database.read(lambda session: queries.preview(session, owner, job_id))

    def want_preview(self, owner: str | None, job_id: str) -> None:
        self.database.write(lambda session: commands.want_preview(session, owner, job_id), durable=False)

    def counters(self, owner: str) -> Counters:
        return self.database.read(lambda session: queries.counters(session, owner))

    def load(self) -> Sequence[PoolLoad]:
        return self.database.read(queries.load)

    def ledger(self, owner: str | None, after: int = 0, limit: int = 1000) -> Sequence[LedgerEntry]:
        return self.database.read(lambda session: queries.ledger(session, owner, after, limit))

    def usage(self, owner: str | None, first_day: int, end_day: int) -> Sequence[Usage]:
        return self.database.read(lambda session: usage.report(session, owner, first_day, end_day))

    def set_bounds(self, subject: str, new: Bounds) -> None:
        check_text("subject", subject)
        self.database.write(lambda session: bounds.set_bounds(session, subject, new))

    def bounds_use(self, subject: str) -> BoundsUse:
        return self.database.read(lambda session: bounds.use(session, subject))

    def claim(self, runner: str, pool: str, models: Collection[str], max_images: int) -> Sequence[Claim]:
        check_text("runner", runner)
        check_text("pool", pool)
        self._tick_and_expire()
        # Idle runners ask often; they need not wait for the writers.
        if not self.database.read(lambda session: fair_queue.has_candidates(session, pool, models)):
            return []
        return self.database.write(
            lambda session: claims.claim(session, self._settings, runner, pool, models, max_images)
        )

    def inputs(self, job_id: str) -> Mapping[str, Blob]:
        return self.database.read(lambda session: queries.inputs(session, job_id))

    def renew(self, reports: Sequence[Report]) -> Signals:
        return self.database.write(lambda session: claims.renew(session, self._settings, reports), durable=False)

    def finish(self, lease: Lease, result: JsonObject, bill: Bill) -> Job:
        body = to_json("result", result, self._settings.max_request_bytes)
        return self.database.write(lambda session: claims.finish(session, lease, body, bill))

    def fail(self, lease: Lease, error: JobError, *, retryable: bool, bill: Bill | None = None) -> Job:
        return self.database.write(lambda session: claims.fail(session, self._settings, lease, error, retryable, bill))

    def finish_cancelled(self, lease: Lease, bill: Bill | None = None) -> Job:
        return self.database.write(lambda session: claims.finish_cancelled(session, lease, bill))

    def release(self, leases: Sequence[Lease]) -> None:
        self.database.write(lambda session: claims.release(session, leases))

    def forget_runner(self, runner: str) -> Sequence[str]:
        check_text("runner", runner)
        return self.database.write(lambda session: housekeeping.forget_runner(session, self._settings, runner))

    def sweep(self) -> None:
        self._tick_and_expire()
        if self.database.read(lambda session: housekeeping.has_old(session, self._settings)):
            self.database.write(lambda session: housekeeping.delete_old(session, self._settings))

    def expired_results(self, limit: int = 100) -> Sequence[Job]:
        return self.database.read(lambda session: housekeeping.expired_results(session, self._settings, limit))

    def drop_results(self, job_ids: Sequence[str]) -> None:
        self.database.write(lambda session: housekeeping.drop_results(session, job_ids))

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        return self.database.subscribe(listener)

    def close(self) -> None:
        self.database.close()

    def _tick_and_expire(self) -> None:
        tick, expire = self.database.read(housekeeping.due)
        if tick:
            self.database.write(uptime.tick, durable=False)
        if expire:
            self.database.write(lambda session: housekeeping.expire(session, self._settings))
