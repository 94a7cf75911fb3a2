"""Metrics of the gateway for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import Job, PoolLoad
from triton_diffusers.gateway.jobs.table import JobTable

logger = logging.getLogger(__name__)

_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_POLL_SECONDS = 1.0


class JobMetrics:
    """Counts the requests of this gateway, and times the jobs that it has accepted.

    A job is accepted by one gateway, so that sums over all gateways count each job once. Jobs in flight when a gateway
    ends are not timed.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("sd_gateway_requests", "HTTP requests answered", "route", "status")
        self._ended = self._counter("sd_jobs_ended", "Jobs ended, by their last state", "dialect", "model", "state")
        self._accepted = self._counter("sd_jobs_accepted", "Jobs accepted", "dialect", "model")
        self.webhooks = self._counter("sd_webhook_deliveries", "Attempts to deliver webhooks", "outcome")
        self._queue = self._histogram("sd_job_queue_seconds", "Time from acceptance to the first claim")
        self._run = self._histogram("sd_job_run_seconds", "Time from the first claim to the end")
        self._total = self._histogram("sd_job_total_seconds", "Time from acceptance to the end")
        self._queued = self._gauge("sd_queue_jobs", "Jobs that wait for a runner")
        self._queue_work = self._gauge("sd_queue_work", "Megapixel-steps that wait for a runner")
        self._running = self._gauge("sd_running_jobs", "Jobs that runners hold")
        self._oldest = self._gauge("sd_queue_oldest_seconds", "Age of the job that has waited longest")
        self._in_flight: dict[str, int] = {}

    def accepted(self, job: Job) -> None:
        """Count a job, and time it from now on."""
        self._accepted.labels(job.dialect, job.model).inc()
        self._in_flight[job.id] = job.event

    async def follow(self, table: JobTable) -> None:
        """Time the accepted jobs as they end, for ever."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self._look(table)
            except TableUnavailable as error:
                logger.warning("metrics: %s", error)

    async def page(self, table: JobTable) -> bytes:
        """Return all metrics in Prometheus' text format, with the queue as it is now."""
        self._show(await table.load())
        return generate_latest(self.registry)

    async def _look(self, table: JobTable) -> None:
        if not self._in_flight:
            return
        numbers = await table.event_numbers(set(self._in_flight))
        changed = [job_id for job_id, seen in self._in_flight.items() if numbers.get(job_id) != seen]
        jobs = {job.id: job for job in await table.get_many(changed)} if changed else {}
        for job_id in changed:
            job = jobs.get(job_id)
            if job is not None and not job.state.has_ended:
                self._in_flight[job_id] = job.event
                continue
            del self._in_flight[job_id]
            if job is not None:
                self._observe(job)

    def _observe(self, job: Job) -> None:
        self._ended.labels(job.dialect, job.model, job.state.value).inc()
        if job.ended is None:
            return
        self._total.labels(job.dialect, job.model).observe(job.ended - job.created)
        if job.started is not None:
            self._queue.labels(job.dialect, job.model).observe(job.started - job.created)
            self._run.labels(job.dialect, job.model).observe(job.ended - job.started)

    def _show(self, loads: Iterable[PoolLoad]) -> None:
        for gauge in (self._queued, self._queue_work, self._running, self._oldest):
            gauge.clear()
        for load in loads:
            self._queued.labels(load.pool).set(load.queued)
            self._queue_work.labels(load.pool).set(load.queued_work)
            self._running.labels(load.pool).set(load.running)
            self._oldest.labels(load.pool).set(load.oldest_wait_seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("dialect", "model"), registry=self.registry, buckets=_BUCKETS)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("pool",), registry=self.registry)
