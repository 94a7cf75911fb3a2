"""The job table for asyncio: a store's methods in a few threads, and waiting for changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import Claim, Job, JobEvent

logger = logging.getLogger(__name__)

# Notifications only make waiting shorter: the table is read this often all the same.
_POLL_SECONDS = 1.0
_MAX_THREADS = 4

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _threaded(
    method: Callable[Concatenate[JobStore, _P], _T],
) -> Callable[Concatenate[JobTable, _P], Coroutine[Any, Any, _T]]:
    """Return the store's ``method`` as a coroutine function of the table."""

    @wraps(method)
    async def call(table: JobTable, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await table.call(getattr(table.store, method.__name__), *args, **kwargs)

    return call


class JobTable:
    """A job store for one event loop: the methods of ``JobStore``, awaited, and those that wait.

    The store is synchronous because SQLite is, and so that one implementation serves both databases; it runs in threads
    so that no commit blocks the loop. A call whose task is cancelled is completed by its thread all the same.
    """

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.executor = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="job-table")
        self._waiters: dict[asyncio.Future[None], tuple[str, int]] = {}
        self._next_change: asyncio.Future[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    submit = _threaded(JobStore.submit)
    get = _threaded(JobStore.get)
    get_many = _threaded(JobStore.get_many)
    event_numbers = _threaded(JobStore.event_numbers)
    jobs = _threaded(JobStore.jobs)
    in_flight = _threaded(JobStore.in_flight)
    position = _threaded(JobStore.position)
    cancel = _threaded(JobStore.cancel)
    leave = _threaded(JobStore.leave)
    rerun = _threaded(JobStore.rerun)
    delete = _threaded(JobStore.delete)
    events = _threaded(JobStore.events)
    preview = _threaded(JobStore.preview)
    want_preview = _threaded(JobStore.want_preview)
    counters = _threaded(JobStore.counters)
    load = _threaded(JobStore.load)
    ledger = _threaded(JobStore.ledger)
    usage = _threaded(JobStore.usage)
    set_bounds = _threaded(JobStore.set_bounds)
    bounds_use = _threaded(JobStore.bounds_use)
    claim = _threaded(JobStore.claim)
    inputs = _threaded(JobStore.inputs)
    renew = _threaded(JobStore.renew)
    finish = _threaded(JobStore.finish)
    fail = _threaded(JobStore.fail)
    finish_cancelled = _threaded(JobStore.finish_cancelled)
    release = _threaded(JobStore.release)
    forget_runner = _threaded(JobStore.forget_runner)
    sweep = _threaded(JobStore.sweep)
    expired_results = _threaded(JobStore.expired_results)
    drop_results = _threaded(JobStore.drop_results)

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return the result of a function of the store, such as ``table.store.sinks.take``, called in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, partial(function, *args, **kwargs))

    async def wait_for_events(
        self, owner: str | None, job_id: str, after: int, timeout_seconds: float
    ) -> Sequence[JobEvent]:
        """Return the job's events above ``after`` as soon as there is one; none if the time is over.

        Raises: JobNotFound.
        """
        deadline = _now() + timeout_seconds
        while True:
            events = await self.events(owner, job_id, after)
            if events or not await self._wait_for_event(job_id, after, deadline):
                return events

    async def wait_for_end(self, owner: str | None, job_id: str, timeout_seconds: float) -> Job:
        """Return the job as soon as it has ended, or as it is when the time is over. Raises: JobNotFound."""
        deadline = _now() + timeout_seconds
        while True:
            job = await self.get(owner, job_id)
            if job.state.has_ended or not await self._wait_for_event(job_id, job.event, deadline):
                return job

    async def wait_for_claim(
        self, runner: str, pool: str, models: Collection[str], max_images: int, timeout_seconds: float
    ) -> Sequence[Claim]:
        """Claim as soon as there is something to claim; nothing if the time is over."""
        return await self.wait_for_some(timeout_seconds, self.store.claim, runner, pool, models, max_images)

    async def wait_for_some(
        self, timeout_seconds: float, function: Callable[_P, Sequence[_T]], *args: _P.args, **kwargs: _P.kwargs
    ) -> Sequence[_T]:
        """Return what a function of the store returns, as soon as there is something or the time is over.

        It is called again after each change of the table and each second, so it must not itself write for nothing.
        """
        deadline = _now() + timeout_seconds
        while True:
            change = self.next_change()
            found = await self.call(function, *args, **kwargs)
            if found or (remaining := deadline - _now()) <= 0:
                return found
            await asyncio.wait([change], timeout=min(_POLL_SECONDS, remaining))

    async def close(self) -> None:
        """Release the database, after the calls in flight."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()
        await asyncio.to_thread(self.executor.shutdown)
        self.store.close()

    async def _wait_for_event(self, job_id: str, after: int, deadline: float) -> bool:
        """Wait for an event above ``after`` or the job's deletion; return False if the time was over before."""
        if (remaining := deadline - _now()) <= 0:
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = job_id, after
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([waiter], timeout=remaining)
        finally:
            self._waiters.pop(waiter, None)
        return waiter.done()

    async def _watch(self) -> None:
        """Wake the waiters whose jobs have changed: one query for all of them, at each change and each second."""
        while self._waiters:
            change = self.next_change()
            try:
                numbers = await self.event_numbers({job_id for job_id, _ in self._waiters.values()})
            except TableUnavailable as error:
                logger.warning("job table: %s", error)
            else:
                for waiter, (job_id, after) in list(self._waiters.items()):
                    if numbers.get(job_id, after + 1) > after and not waiter.done():
                        waiter.set_result(None)
                        self._waiters.pop(waiter)
            await asyncio.wait([change], timeout=_POLL_SECONDS)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that the next change of the table completes; it may miss one, see ``JobStore.subscribe``."""
        loop = asyncio.get_running_loop()
        if self._unsubscribe is None:
            self._unsubscribe = self.store.subscribe(partial(loop.call_soon_threadsafe, self._on_change))
        if self._next_change is None:
            self._next_change = loop.create_future()
        return self._next_change

    def _on_change(self) -> None:
        if self._next_change is not None:
            self._next_change.set_result(None)
            self._next_change = None


def _now() -> float:
    return asyncio.get_running_loop().time()
