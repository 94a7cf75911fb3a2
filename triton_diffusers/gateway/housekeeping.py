"""Upkeep of the job table: expired leases and waits, and results whose time is over."""

from __future__ import annotations

import asyncio
import logging

from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.results import Results

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
_RESULTS_SECONDS = 60.0


class Housekeeper:
    """Sweeps the table. Every gateway has one; several do no harm."""

    def __init__(self, table: JobTable, results: Results) -> None:
        self._table = table
        self._results = results

    async def run(self) -> None:
        """Sweep for ever."""
        next_results = 0.0
        while True:
            now = asyncio.get_running_loop().time()
            try:
                await self._table.sweep()
                if now >= next_results:
                    next_results = now + _RESULTS_SECONDS
                    await self.discard_expired()
            except TableUnavailable as error:
                logger.warning("the job table is not swept: %s", error)
            except Exception:  # a sweep that fails must not end the next ones
                logger.exception("a sweep of the job table failed; this is a bug")
            await asyncio.sleep(_SWEEP_SECONDS)

    async def discard_expired(self) -> None:
        """Delete the images of jobs whose results have been kept long enough."""
        while jobs := await self._table.expired_results():
            for job in jobs:
                await self._results.discard(job)
            await self._table.drop_results([job.id for job in jobs])
