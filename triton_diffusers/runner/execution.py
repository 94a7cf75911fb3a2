"""One job, from its claim to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.api.statuses import INVALID_FIELD, SERVER_ERROR
from triton_diffusers.errors import InvalidRequest, StorageFailure
from triton_diffusers.gateway.inputs import join_inputs
from triton_diffusers.gateway.jobs.errors import LeaseLost, TableUnavailable
from triton_diffusers.gateway.jobs.job import Blob, Claim, JobError, JobState, Lease, Report, Signals
from triton_diffusers.gateway.jobs.job import Progress as TableProgress
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.runner.outcome import (
    Failure,
    Verdict,
    bill_of,
    failure_of,
    partial_bill,
    result_outputs,
)
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.runner.triton import WITHOUT_TRANSLATOR, Progress, Triton, TritonError
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 10.0
_JPEG = "image/jpeg"


class Execution:
    """A claimed job on its way. ``progress`` and ``preview`` are the latest of Triton's.

    ``cancelled`` is set when its cancellation was requested, ``lost`` when the lease is not the job's any more,
    ``handed_back`` when it is queued again, ``failed`` when Triton has answered with an error.
    """

    def __init__(self, claim: Claim, table: JobTable, triton: Triton, results: ResultWriter) -> None:
        self.job, self.lease = claim.job, claim.lease
        self._table, self._triton, self._results = table, triton, results
        self.progress: Progress | None = None
        self.preview = b""
        self.preview_wanted = False
        self.cancelled = False
        self.lost = False
        self.handed_back = False
        self.failed = False
        self._reported: tuple[Progress | None, bytes] = (None, b"")

    async def run(self, models: frozenset[str]) -> None:
        """Run the job on one of Triton's ``models``, and end it in the table."""
        try:
            await self._run(models)
        except LeaseLost:
            self.lost = True
            logger.warning("job %s: its lease is lost; the result is dropped", self.job.id)
        except TritonError as error:
            await self._end_failed(failure_of(error, cancelled=self.cancelled))
        except (InvalidRequest, StorageFailure) as error:
            code = INVALID_FIELD if isinstance(error, InvalidRequest) else SERVER_ERROR
            verdict = Verdict.FAIL if isinstance(error, InvalidRequest) else Verdict.RETRY
            await self._end_failed(Failure(verdict, JobError(message=str(error), code=code)))
        except Exception:
            logger.exception("job %s failed; this is a bug", self.job.id)
            text = "the job failed; the runner's log says why"
            await self._end_failed(Failure(Verdict.RETRY, JobError(message=text, code=SERVER_ERROR)))

    def report(self) -> Report:
        """Return the news of the job since the last report."""
        progress, preview = self.progress, self.preview
        old_progress, old_preview = self._reported
        self._reported = progress, preview
        shown = None
        if progress is not None and progress != old_progress:
            shown = TableProgress(step=progress.step, steps=progress.steps, images_done=progress.images_done)
        new_preview = Blob(data=preview, media_type=_JPEG) if preview != old_preview else None
        return Report(lease=self.lease, progress=shown, preview=new_preview)

    def note(self, signals: Signals) -> None:
        """Take in what the table says of the job."""
        self.preview_wanted = self.job.id in signals.previews_wanted
        self.lost = self.lost or self.job.id in signals.lost
        self.cancelled = self.cancelled or self.job.id in signals.cancelled

    def supersede(self, lease: Lease) -> bool:
        """Return True if ``lease`` is a later one of the same job; this one is lost then."""
        if lease.job_id != self.job.id:
            return False
        self.lost = True
        return True

    async def stop_on_triton(self) -> None:
        """Have Triton end the job; its call gets the answer. A job that Triton does not know yet is tried again."""
        try:
            await self._triton.cancel(self.job.id)
        except TritonError as error:
            logger.warning("job %s is not cancelled yet: %s", self.job.id, error)

    async def _run(self, models: frozenset[str]) -> None:
        name = self.job.model
        model = name if name in models else WITHOUT_TRANSLATOR.get(name, name)
        inputs = await self._persistently(lambda: self._table.inputs(self.job.id))
        values = join_inputs(self.job.request["fields"], inputs, CONTRACTS[model].inputs)
        values["task_id"] = self.job.id
        values["timeout_seconds"] = self._remaining_seconds(values["timeout_seconds"])
        if self.job.attempts > 1:
            await self.stop_on_triton()  # a runner that died may have left it here
        headers = {"traceparent": self.job.traceparent} if self.job.traceparent else {}
        outputs = await self._triton.generate(model, values, headers)
        files = await self._results.save(self.job, outputs)
        kept = result_outputs(outputs)
        result = {"outputs": kept, "files": files}
        bill = bill_of(self.job, kept)
        ended = await self._persistently(lambda: self._table.finish(self.lease, result, bill))
        if ended.state is JobState.CANCELLED:
            await self._results.discard(files)

    def _remaining_seconds(self, timeout_seconds: float) -> float:
        """Return what is left of the request's timeout, which began when the job was accepted; 0: no timeout."""
        if not timeout_seconds:
            return 0.0
        waited = (self.job.started or self.job.created) - self.job.created
        return max(0.001, timeout_seconds - waited)

    async def _end_failed(self, failure: Failure) -> None:
        self.failed = True
        if self.lost or self.handed_back:
            return
        try:
            await self._end(failure)
        except LeaseLost:
            self.lost = True

    async def _end(self, failure: Failure) -> None:
        job, error = self.job, failure.error
        logger.warning("job %s (%s): %s: %s", job.id, job.label, failure.verdict.value, error.message)
        bill = partial_bill(job, self.progress)
        if failure.verdict is Verdict.HAND_BACK:
            self.handed_back = True
            await self._persistently(lambda: self._table.release([self.lease]))
        elif failure.verdict is Verdict.CANCELLED:
            await self._persistently(lambda: self._table.finish_cancelled(self.lease, bill))
        else:
            retryable = failure.verdict is Verdict.RETRY
            await self._persistently(lambda: self._table.fail(self.lease, error, retryable=retryable))

    async def _persistently(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what ``call`` returns, tried again for as long as the table is unavailable. Raises: LeaseLost."""
        attempt = 0
        while True:
            try:
                return await call()
            except TableUnavailable as error:
                if self.lost:
                    raise LeaseLost(self.job.id, self.lease.epoch) from error
                logger.warning("job %s: the job table is unavailable: %s", self.job.id, error)
                await asyncio.sleep(backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True))
                attempt += 1
