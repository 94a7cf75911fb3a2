"""Submitting jobs and waiting for them, for every dialect."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from starlette.requests import HTTPConnection, Request

from triton_diffusers.api.statuses import SERVER_ERROR
from triton_diffusers.errors import Cancelled, TimedOut
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import Caller
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.fleet import ServedDefaults
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import Job, JobState, NewJob, OwnerLimits, Submitted
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.metrics import JobMetrics
from triton_diffusers.gateway.middleware.body import DISCONNECTED
from triton_diffusers.gateway.middleware.request_ids import REQUEST_IDS
from triton_diffusers.gateway.results import Results
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.gateway.submission import JobOrigin
from triton_diffusers.gateway.webhooks.sender import WebhookSender
from triton_diffusers.gateway.webhooks.signature import WebhookSigner
from triton_diffusers.settings import Settings
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

_MAX_KEY_CHARS = 255
_LEAVE_ATTEMPTS = 5
_CALLER_IS_GONE = 499  # nginx's status; nobody reads it but the access log


@dataclass(frozen=True, slots=True)
class Service:
    """The services of all dialects: the table, the results, the settings; ``limits`` are those of requests."""

    table: JobTable
    results: Results
    limits: Settings
    settings: GatewaySettings
    metrics: JobMetrics
    authenticator: Authenticator
    accounts: AccessStore
    webhooks: WebhookSender
    webhook_signer: WebhookSigner
    defaults: ServedDefaults = field(default_factory=ServedDefaults)

    def origin(self, request: Request, dialect: str, *, body: bytes = b"", waiting: bool = False) -> JobOrigin:
        """Return the particulars of an HTTP request; with ``body``, identical requests in flight are one job.

        Raises: Refused: the ``Idempotency-Key`` is too long.
        """
        key = request.headers.get("idempotency-key", "")
        if len(key) > _MAX_KEY_CHARS:
            rule = f"at most {_MAX_KEY_CHARS} characters"
            raise Refused(Fault(status=400, message=f"Idempotency-Key: {len(key)} characters is invalid: {rule}"))
        digest = hashlib.sha256(request.scope["path"].encode() + b"\0" + body).hexdigest()
        return JobOrigin(
            dialect=dialect,
            defaults=self.defaults.current,
            traceparent=request.scope[REQUEST_IDS].traceparent,
            idempotency_key=key,
            fingerprint=digest if body else "",
            waiting=waiting,
        )

    def base_url(self, connection: HTTPConnection) -> str:
        """Return the base of URLs in replies, without a slash at its end."""
        base = self.settings.public_url or re.sub("^ws", "http", str(connection.base_url))  # of a WebSocket
        return base.rstrip("/")

    async def submit(self, caller: Caller, jobs: Sequence[NewJob]) -> Sequence[Submitted]:
        """Accept jobs, all or none.

        Raises: Refused, TooManyJobs, BoundReached, KeyReused, InvalidRequest, TableUnavailable.
        """
        for job in jobs:
            if caller.models and job.model not in caller.models:
                rule = f"this key may be used for: {', '.join(sorted(caller.models))}"
                message = f"model: {job.model!r} is invalid: {rule}"
                raise Refused(Fault(status=403, code=403, message=message, field="model", rule=rule))
        owned = [replace(job, weight=caller.weight, team=caller.team, key_id=caller.key_id) for job in jobs]
        submitted = await self.table.submit(caller.owner, owned, OwnerLimits(max_jobs=self.settings.max_queued))
        for each in submitted:
            if each.created:
                self.metrics.accepted(each.job)
        return submitted

    async def wait(self, request: Request, job: Job) -> Job:
        """Return a job of a synchronous request when it has succeeded.

        A caller who hangs up leaves the job, which is then cancelled unless somebody else waits for it.

        Raises: the job's error; Cancelled, TimedOut; Refused if the caller has hung up.
        """
        ended = False
        try:
            job = await self._first_of_end_and_disconnect(request, job)
            ended = job.state.has_ended
        finally:
            if not ended:
                await asyncio.shield(self.leave(job.id))
        if not ended:
            raise TimedOut(self.settings.sync_seconds)
        raise_unless_succeeded(job)
        return job

    async def _first_of_end_and_disconnect(self, request: Request, job: Job) -> Job:
        end = asyncio.ensure_future(self.table.wait_for_end(job.owner, job.id, self.settings.sync_seconds))
        disconnect = asyncio.ensure_future(request.scope[DISCONNECTED].wait())
        try:
            await asyncio.wait((end, disconnect), return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                return end.result()
            raise Refused(Fault(status=_CALLER_IS_GONE, code=SERVER_ERROR, message="the caller has hung up"))
        finally:
            for task in (end, disconnect):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def leave(self, job_id: str) -> None:
        """Count a caller less who waits for a job, which is cancelled if nobody else does."""
        for attempt in range(_LEAVE_ATTEMPTS):
            try:
                await self.table.leave(job_id, self.settings.leave_seconds)
            except TableUnavailable as error:
                logger.warning("job %s is not left yet: %s", job_id, error)
                await asyncio.sleep(backoff(attempt, first=1.0))
            else:
                return


def raise_unless_succeeded(job: Job) -> None:
    """Raise the error of an ended job that has no result."""
    if job.state is JobState.SUCCEEDED:
        return
    if job.state is JobState.CANCELLED:
        raise Cancelled("the job was cancelled")
    message = job.error.message if job.error else f"the job is {job.state}"
    code = (job.error.code if job.error else 0) or SERVER_ERROR
    raise Refused(Fault(status=400 if code != SERVER_ERROR else 500, code=code, message=message))
