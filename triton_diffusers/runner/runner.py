"""The runner: claims into a window, renews its leases, and hands back what it cannot finish."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.directory import ANNOUNCEMENT_SECONDS, Announcement
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import Claim, Lease, Signals
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.runner.execution import Execution
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.runner.settings import RunnerOptions
from triton_diffusers.runner.triton import WITHOUT_TRANSLATOR, Triton, TritonError
from triton_diffusers.util.backoff import backoff
from triton_diffusers.util.notice import NOTICE

logger = logging.getLogger(__name__)

# A claim that is given up would be completed all the same, by its thread: so it waits only for so long.
_CLAIM_SECONDS = 1.0
_REPORT_SECONDS = 0.5
_MODELS_SECONDS = 5.0
_ANNOUNCE_SECONDS = ANNOUNCEMENT_SECONDS / 6
_DESCRIBED = ("sd_controlnet", "sd_base")  # one of them suffices: they share their engine
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.25, 4.0
_PATIENT_ATTEMPTS = 75  # about five minutes, between warnings; a server that starts loads its models in that time
_GIVE_UP_SECONDS = 3.0  # for the answers of jobs that are being handed back


class Runner:
    """Runs jobs of a pool on one Triton."""

    def __init__(self, table: JobTable, triton: Triton, results: ResultWriter, options: RunnerOptions) -> None:
        self._table, self._triton, self._results, self._options = table, triton, results, options
        self._executions: dict[Execution, asyncio.Task[None]] = {}
        self._models: frozenset[str] = frozenset()
        self._models_until = 0.0
        self._changed = asyncio.Event()
        self._orphans: set[str] = set()
        self._models_known = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run jobs until ``stopping`` is set; then finish those that end in time and hand back the others."""
        endless = (self._renew_for_ever(), self._watch_for_ever(), self._announce_for_ever())
        loops = [asyncio.create_task(each) for each in endless]
        try:
            await self._forget_former_self(stopping)
            await self._claim_until(stopping)
            await self._drain()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._withdraw()

    async def _forget_former_self(self, stopping: asyncio.Event) -> None:
        attempt = 0
        while not stopping.is_set():
            try:
                self._orphans = set(await self._table.forget_runner(self._options.name))
            except TableUnavailable as error:
                attempt = await self._pause(attempt, stopping, str(error))
                continue
            if self._orphans:
                logger.log(NOTICE, "%d jobs of a former run of %s were left", len(self._orphans), self._options.name)
            return

    async def _claim_until(self, stopping: asyncio.Event) -> None:
        attempt = 0
        while not stopping.is_set():
            try:
                served = await self._served()
                await self._end_orphans()
            except TritonError as error:
                attempt = await self._pause(attempt, stopping, f"Triton at {self._triton.address}: {error}")
                continue
            room = self._options.max_images - sum(each.job.images for each in self._executions)
            if room <= 0:
                await self._wait_for_change()
                continue
            try:
                claims = await self._table.wait_for_claim(
                    self._options.name, self._options.pool, served, room, _CLAIM_SECONDS
                )
            except TableUnavailable as error:
                attempt = await self._pause(attempt, stopping, str(error))
                continue
            try:
                await self._look_again_after_failure()
            except TritonError as error:
                await self._release([claim.lease for claim in claims])
                attempt = await self._pause(attempt, stopping, f"Triton at {self._triton.address}: {error}")
                continue
            attempt = 0
            for claim in claims:
                self._start(claim)

    async def _end_orphans(self) -> None:
        """Have Triton end the jobs of a former run, which it may still draw. Raises ``TritonError``.

        Whoever runs them next, here or elsewhere, has them drawn again.
        """
        for job_id in sorted(self._orphans):
            await self._triton.cancel(job_id)
            self._orphans.remove(job_id)

    async def _look_again_after_failure(self) -> None:
        """Raise ``TritonError`` if a job has failed during the claim because Triton is gone.

        That claim was waiting in the table, and got the failed job at once: it would fail again.
        """
        if any(execution.failed for execution in self._executions):
            self._models_until = 0.0
        if not self._models_until:
            await self._served()

    async def _release(self, leases: Sequence[Lease]) -> None:
        try:
            await self._table.release(leases)
        except TableUnavailable as error:
            logger.warning("jobs are not handed back, and wait for the end of their leases: %s", error)

    async def _served(self) -> Collection[str]:
        """Return the models whose jobs this runner can run now. Raises ``TritonError`` if there are none."""
        now = asyncio.get_running_loop().time()
        if now >= self._models_until:
            self._models = await self._triton.models()
            if not self._models:
                raise TritonError("UNAVAILABLE", "no model is ready")
            self._models_until = now + _MODELS_SECONDS
            self._models_known.set()
        return self._servable()

    def _servable(self) -> Collection[str]:
        ensembles = {ensemble for ensemble, model in WITHOUT_TRANSLATOR.items() if model in self._models}
        return self._models | ensembles

    def _start(self, claim: Claim) -> None:
        execution = Execution(claim, self._table, self._triton, self._results)
        former = [task for each, task in self._executions.items() if each.supersede(claim.lease)]
        self._executions[execution] = asyncio.create_task(self._execute(execution, former))

    async def _execute(self, execution: Execution, former: Sequence[asyncio.Task[None]]) -> None:
        """Run a job after earlier runs of it that are still ending here: Triton knows both by one id."""
        try:
            await asyncio.gather(*former, return_exceptions=True)
            await execution.run(self._models)
        finally:
            if execution.failed:
                self._models_until = 0.0  # Triton may be gone: look before the next claim
            del self._executions[execution]
            self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(_CLAIM_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _pause(self, attempt: int, stopping: asyncio.Event, reason: str) -> int:
        """Wait after a failed attempt, or until the stop; return the number of the next one."""
        if attempt == 0:
            logger.info("waiting: %s", reason)
        elif attempt % _PATIENT_ATTEMPTS == 0:
            logger.warning("still waiting: %s", reason)
        try:
            async with asyncio.timeout(backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS)):
                await stopping.wait()
        except TimeoutError:
            pass
        self._models_until = 0.0
        return attempt + 1

    # Announcements: gateways learn from them which models are ready.

    async def _announce_for_ever(self) -> None:
        while True:
            await self._models_known.wait()
            try:
                await self._announce()
            except (TritonError, TableUnavailable) as error:
                logger.info("the models are not announced yet: %s", error)
            except InvalidRequest as error:
                logger.warning("the models are not announced: %s", error)
            await asyncio.sleep(_ANNOUNCE_SECONDS)

    async def _announce(self) -> None:
        described = next((name for name in _DESCRIBED if name in self._models), None)
        if described is None:
            return
        description = await self._triton.describe(described)
        announcement = Announcement(
            runner=self._options.name,
            pool=self._options.pool,
            models=tuple(self._servable()),
            description=description.to_json(),
        )
        await self._table.call(self._table.store.directory.announce, announcement)

    async def _withdraw(self) -> None:
        try:
            await self._table.call(self._table.store.directory.withdraw, self._options.name)
        except TableUnavailable as error:
            logger.info("the announcement is left to expire: %s", error)

    # Two loops, so that a Triton that does not answer lets no lease expire.

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if not self._executions:
                continue
            try:
                signals = await self._table.renew([each.report() for each in self._executions if not each.lost])
            except TableUnavailable as error:
                logger.warning("leases are not renewed: %s", error)
            else:
                self._note(signals)

    def _note(self, signals: Signals) -> None:
        for execution in self._executions:
            if not execution.lost:
                execution.note(signals)

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if not self._executions:
                continue
            try:
                await self._watch()
            except TritonError as error:
                logger.info("no progress from Triton: %s", error)

    async def _watch(self) -> None:
        for execution in list(self._executions):
            if execution.lost or execution.cancelled:
                await execution.stop_on_triton()
        found = await self._triton.progress()
        for execution in list(self._executions):
            if (progress := found.get(execution.job.id)) is None:
                continue
            execution.progress = progress
            if execution.preview_wanted:
                execution.preview = await self._triton.preview(execution.job.id) or execution.preview

    # Stopping.

    async def _drain(self) -> None:
        await self._wait_for_all(self._options.exit_seconds)
        left = [execution for execution in self._executions if not execution.lost]
        if not left:
            return
        logger.log(NOTICE, "%d jobs are handed back", len(left))
        for execution in left:
            execution.handed_back = True
            await execution.stop_on_triton()
        await self._release([execution.lease for execution in left])
        await self._wait_for_all(_GIVE_UP_SECONDS)
        tasks = list(self._executions.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for_all(self, seconds: float) -> None:
        if self._executions:
            logger.log(NOTICE, "jobs that are ending: %d", len(self._executions))
            await asyncio.wait(list(self._executions.values()), timeout=seconds)
