"""Delivery of the messages in the outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread

from triton_diffusers.gateway.jobs.errors import JobNotFound, TableUnavailable
from triton_diffusers.gateway.jobs.job import Job, WebhookState
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.jobs.webhook import Delivery
from triton_diffusers.gateway.webhooks.sender import Outcome, WebhookSender
from triton_diffusers.gateway.webhooks.signature import WebhookSigner
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 5.0, 4 * 3600.0
_STOP_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """Limits of deliveries: ``places`` at once, and the time for which a message is tried again.

    A claim outlasts its attempt by ``spare_seconds``, so that a gateway that is slow to settle it does not lose it.
    """

    places: int
    retry_seconds: float
    spare_seconds: float = 20.0

    @property
    def places_per_host(self) -> int:
        """Return the deliveries to one host at once, so that a slow one does not delay the others."""
        return max(1, self.places // 8)

    @property
    def places_per_owner(self) -> int:
        """Return the deliveries for one owner at once, who may have slow receivers on many hosts."""
        return max(1, self.places // 2)


class WebhookDeliverer:
    """Delivers messages. Every gateway has one; each message is claimed by one of them at a time."""

    def __init__(
        self,
        table: JobTable,
        sender: WebhookSender,
        signer: WebhookSigner,
        body: Callable[[Job], bytes],
        limits: DeliveryLimits,
        count: Callable[[str], object] = lambda outcome: None,
    ) -> None:
        """``body`` returns the message of an ended job; ``count`` is called with each outcome, for metrics."""
        self._table, self._sender, self._signer, self._body = table, sender, signer, body
        self._limits, self._count = limits, count
        self._active: dict[asyncio.Task[None], Delivery] = {}

    async def run(self) -> None:
        """Deliver for ever. When it is cancelled, deliveries under way get a few seconds to end."""
        try:
            while True:
                change = self._table.next_change()
                try:
                    while await self._start_some():
                        pass
                except TableUnavailable as error:
                    logger.warning("webhooks wait: %s", error)
                except Exception:  # a claim that fails must not end the next ones
                    logger.exception("webhooks are not delivered; this is a bug")
                await asyncio.wait((change, *self._active), timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._active:
                await asyncio.wait(tuple(self._active), timeout=_STOP_SECONDS)

    async def _start_some(self) -> bool:
        """Claim and start messages; return False if there was nothing to start."""
        room = self._limits.places - len(self._active)
        if room <= 0:
            return False
        hosts = Counter(delivery.host for delivery in self._active.values())
        owners = Counter(delivery.owner for delivery in self._active.values())
        claimed = await self._table.call(
            self._table.store.outbox.claim,
            room,
            self._sender.seconds + self._limits.spare_seconds,
            [host for host, number in hosts.items() if number >= self._limits.places_per_host],
            [owner for owner, number in owners.items() if number >= self._limits.places_per_owner],
        )
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._active[task] = delivery
            task.add_done_callback(self._active.pop)
        return bool(claimed)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            job = await self._table.get(None, delivery.job_id)
            if job.webhook is None or job.webhook.state is not WebhookState.WAITING:
                return  # withdrawn meanwhile
            body = self._body(job)
            now = int(time.time())
            headers = self._signer.headers(delivery.owner, job.webhook.message_id, now, body)
            url = job.webhook.url
            await self._settle(delivery, await _in_thread(lambda: self._sender.send(url, headers, body)))
        except JobNotFound:
            pass  # deleted meanwhile
        except TableUnavailable as error:  # the message is due again at the end of the claim
            logger.warning("webhook of job %s: the job table is unavailable: %s", delivery.job_id, error)
        except Exception:
            logger.exception("webhook of job %s: it is not delivered; this is a bug", delivery.job_id)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        outbox = self._table.store.outbox
        if not outcome.error:
            await self._table.call(outbox.delivered, delivery, outcome.status)
            self._count("delivered")
            return
        pause = max(
            backoff(delivery.attempt - 1, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True),
            min(outcome.retry_after, _MAX_PAUSE_SECONDS),
        )
        if outcome.gone or delivery.age_seconds + pause > self._limits.retry_seconds:
            logger.warning(
                "webhook of job %s: given up after %d attempts: %s", delivery.job_id, delivery.attempt, outcome.error
            )
            await self._table.call(outbox.give_up, delivery, outcome.status, outcome.error)
            self._count("given_up")
            return
        logger.info("webhook of job %s: again in %.0f s: %s", delivery.job_id, pause, outcome.error)
        await self._table.call(outbox.retry, delivery, pause, outcome.status, outcome.error)
        self._count("failed")


async def _in_thread(send: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of ``send``, in a thread that does not keep the process from ending."""
    answer: Future[Outcome] = Future()

    def run() -> None:
        try:
            answer.set_result(send())
        except BaseException as error:  # noqa: BLE001  # the caller gets it
            answer.set_exception(error)

    Thread(target=run, name="webhook", daemon=True).start()
    return await asyncio.wrap_future(answer)
