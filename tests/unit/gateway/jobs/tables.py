"""Shorthands for tests of the job table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triton_diffusers.gateway.jobs.job import Bill, Claim, Job, JobState, NewJob
from triton_diffusers.gateway.jobs.sql_store import SqlJobStore

MODEL = "sd_base"
BILL = Bill(megapixel_steps=5.0, image_steps=20, engine_seconds=1.5)
RESULT = {"images": ["a.png"]}
# The clock stands still unless a test moves it.
START = 1_800_000_000.0
_STEP_SECONDS = 4.0


class Table:
    """A store whose database has a clock that only the test moves."""

    def __init__(self, store: Any, now: float = START) -> None:
        assert isinstance(store, SqlJobStore)
        self.store = store
        self.set_clock(now)
        self.store.sweep()

    def set_clock(self, now: float) -> None:
        """Set the database's clock, as an administrator could."""
        self._now = now
        self.store.database.clock = repr(now)

    def step_clock(self, seconds: float) -> None:
        """Let the database's clock jump."""
        self.set_clock(self._now + seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass while some process sweeps the table."""
        while seconds > 0:
            self.step_clock(min(_STEP_SECONDS, seconds))
            self.store.sweep()
            seconds -= _STEP_SECONDS

    def submit(self, owner: str = "ann", **fields: Any) -> Job:
        """Accept one job."""
        (submitted,) = self.store.submit(owner, [new_job(**fields)])
        return submitted.job

    def claim(self, max_images: int = 1, runner: str = "runner", pool: str = "default") -> Sequence[Claim]:
        """Claim for a runner that serves one model."""
        return self.store.claim(runner, pool, [MODEL], max_images)

    def claim_one(self, runner: str = "runner") -> Claim:
        """Claim one job, which there must be."""
        (claim,) = self.claim(runner=runner)
        return claim

    def state(self, job: Job) -> JobState:
        """Return a job's state."""
        return self.store.get(None, job.id).state

    def kinds(self, job: Job) -> Sequence[str]:
        """Return the kinds of a job's events."""
        return [event.kind for event in self.store.events(None, job.id)]


def new_job(**fields: Any) -> NewJob:
    """Return a job to be accepted, with some fields set."""
    return NewJob(**{"model": MODEL, "request": {"prompt": "a cat"}, "work": 1.0, **fields})
