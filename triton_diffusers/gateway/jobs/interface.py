"""Interface of a job store, which SQLite and PostgreSQL implement.

Methods are synchronous, thread-safe and atomic: each is one transaction, durable when it returns (``renew`` and
``want_preview`` are not; a crash of the database may undo them). They never wait for anything but the database.
``table.JobTable`` is the same for asyncio, with waiting.

``owner`` restricts a call to that owner's jobs, as if others did not exist; None stands for the operator.

Raises: TableUnavailable: any method, if the database fails. Repeating the call is safe: submissions with an idempotency
key and endings under the same lease happen once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

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
from triton_diffusers.gateway.jobs.sink import SinkStore
from triton_diffusers.gateway.jobs.usage import Usage
from triton_diffusers.gateway.jobs.webhook import Outbox


class JobStore(Protocol):
    """A durable table of jobs, with the sinks to which ended jobs are appended, and the outbox of their webhooks."""

    @property
    def database(self) -> Database:
        """Return the database, for other tables that are kept in it."""
        ...

    @property
    def sinks(self) -> SinkStore:
        """Return the sinks."""
        ...

    @property
    def directory(self) -> Directory:
        """Return the announcements of runners and the preferences of owners."""
        ...

    @property
    def outbox(self) -> Outbox:
        """Return the outbox."""
        ...

    # The gateway's side.

    def submit(self, owner: str, jobs: Sequence[NewJob], limits: OwnerLimits = ...) -> Sequence[Submitted]:
        """Accept all of the jobs or none, in order; a repeated or joined one is returned as it is.

        Raises: KeyReused, TooManyJobs, BoundReached. InvalidRequest: the request or its inputs are too large.
        """
        ...

    def get(self, owner: str | None, job_id: str) -> Job:
        """Return a job. Raises: JobNotFound."""
        ...

    def get_many(self, job_ids: Collection[str]) -> Sequence[Job]:
        """Return those of the jobs that exist, in the order of their acceptance."""
        ...

    def event_numbers(self, job_ids: Collection[str]) -> Mapping[str, int]:
        """Return the number of the last event of each of the jobs that exists."""
        ...

    def jobs(
        self,
        owner: str | None,
        states: Collection[JobState] = ...,
        label: str | None = None,
        cursor: int | None = None,
        limit: int = 50,
    ) -> Page:
        """Return jobs, the newest first: those in one of ``states`` (empty: any), with ``label`` if one is given."""
        ...

    def in_flight(self, owner: str, sink: str) -> Sequence[JobInFlight]:
        """Return the owner's queued and running jobs that will be appended to a sink, the oldest first."""
        ...

    def position(self, owner: str | None, job_id: str) -> Position | None:
        """Return a job's place in the queue; None if it is not queued. Raises: JobNotFound."""
        ...

    def cancel(self, owner: str | None, job_id: str) -> Job:
        """Cancel a job and return it: a queued one ends at once, a running one when its runner has stopped.

        From now on it cannot succeed. An ended job stays as it is. Raises: JobNotFound.
        """
        ...

    def leave(self, job_id: str, grace_seconds: float) -> None:
        """Count a synchronous caller less; if nobody waits any more, the job is cancelled after ``grace_seconds``.

        A caller who joins it in time keeps it. Only jobs submitted with ``waiting`` are cancelled like this.
        """
        ...

    def rerun(self, owner: str | None, job_id: str) -> Job:
        """Queue a dead job again, with new attempts. Raises: JobNotFound, NotDead, BoundReached."""
        ...

    def delete(self, owner: str | None, job_id: str) -> Job:
        """Delete an ended job and all that belongs to it but its bill; return it as it was.

        Raises: JobNotFound, StillInFlight.
        """
        ...

    def events(self, owner: str | None, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """Return the job's events whose numbers are above ``after``. Raises: JobNotFound."""
        ...

    def preview(self, owner: str | None, job_id: str) -> Blob | None:
        """Return the latest preview of a running job. Raises: JobNotFound."""
        ...

    def want_preview(self, owner: str | None, job_id: str) -> None:
        """Ask the runner for previews of the job in the next seconds. Raises: JobNotFound."""
        ...

    def counters(self, owner: str) -> Counters:
        """Return what an owner has in flight."""
        ...

    def load(self) -> Sequence[PoolLoad]:
        """Return the load of each pool that has jobs in flight."""
        ...

    def ledger(self, owner: str | None, after: int = 0, limit: int = 1000) -> Sequence[LedgerEntry]:
        """Return bills in the order in which they were written, those with numbers above ``after``."""
        ...

    def usage(self, owner: str | None, first_day: int, end_day: int) -> Sequence[Usage]:
        """Return the sums of the ledger for days of UTC, given by their numbers; ``end_day`` is not one of them."""
        ...

    def set_bounds(self, subject: str, new: Bounds) -> None:
        """Replace the bounds of a subject, see ``bounds.subject``. Raises: InvalidRequest."""
        ...

    def bounds_use(self, subject: str) -> BoundsUse:
        """Return the bounds of a subject and their use."""
        ...

    # The runner's side.

    def claim(self, runner: str, pool: str, models: Collection[str], max_images: int) -> Sequence[Claim]:
        """Hand out the next jobs of a pool in fair order, for as long as their images fit into ``max_images``.

        The first one is handed out even if it alone has more images, so that it does not wait for ever: claim only
        when there is room for one.
        """
        ...

    def inputs(self, job_id: str) -> Mapping[str, Blob]:
        """Return a job's inputs by their names."""
        ...

    def renew(self, reports: Sequence[Report]) -> Signals:
        """Renew leases, and post what is new of their jobs. Call it at least every ``lease_seconds / 6``."""
        ...

    def finish(self, lease: Lease, result: JsonObject, bill: Bill) -> Job:
        """End a job with its result and bill. One that was cancelled before ends as cancelled, with its bill.

        Raises: LeaseLost. InvalidRequest: the result is too large.
        """
        ...

    def fail(self, lease: Lease, error: JobError, *, retryable: bool, bill: Bill | None = None) -> Job:
        """End a job with an error; a retryable one is queued again, or dead after the last attempt.

        Raises: LeaseLost.
        """
        ...

    def finish_cancelled(self, lease: Lease, bill: Bill | None = None) -> Job:
        """End a job that its runner has stopped because it was cancelled. Raises: LeaseLost."""
        ...

    def release(self, leases: Sequence[Lease]) -> None:
        """Hand jobs back unharmed, as if they had not been claimed; leases that are lost are ignored."""
        ...

    def forget_runner(self, runner: str) -> Sequence[str]:
        """Let all leases of a runner expire now; return the ids of their jobs.

        For a runner with a stable name that starts again after it was killed: its jobs need not wait for their leases.
        """
        ...

    # Housekeeping.

    def sweep(self) -> None:
        """Expire leases and waits, cancel abandoned jobs, and delete what its retention is over. Call it every second.

        ``claim`` does the same for leases, so that it is enough if one process in the fleet sweeps.
        """
        ...

    def expired_results(self, limit: int = 100) -> Sequence[Job]:
        """Return ended jobs whose results are to be deleted from the result store."""
        ...

    def drop_results(self, job_ids: Sequence[str]) -> None:
        """Note that results were deleted from the result store; their rows are kept for their own retention."""
        ...

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call ``listener`` from any thread soon after a change of any job; return a function that ends it.

        It may be called without a change, and a change may be missed when a connection breaks: look at the table
        every second all the same.
        """
        ...

    def close(self) -> None:
        """Release the database."""
        ...
