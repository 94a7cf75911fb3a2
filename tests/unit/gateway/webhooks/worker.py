"""A process that delivers webhooks until it is killed: ``python -m tests.unit.gateway.webhooks.worker URL``."""

from __future__ import annotations

import asyncio
import sys

from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.webhooks.deliverer import DeliveryLimits, WebhookDeliverer
from triton_diffusers.gateway.webhooks.sender import WebhookSender
from triton_diffusers.gateway.webhooks.signature import WebhookSigner
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.settings import Settings

# A delivery that is lost is due again after their sum.
_SECONDS, _SPARE_SECONDS = 3.0, 1.0


async def main() -> None:
    """Deliver, and sweep the table, which moves its clock."""
    table = JobTable(open_store(sys.argv[1], JobTableSettings()))
    sender = WebhookSender(GuardedClient(Settings(link_allow_hosts="127.0.0.1")), _SECONDS)
    limits = DeliveryLimits(places=64, retry_seconds=86_400.0, spare_seconds=_SPARE_SECONDS)
    deliverer = WebhookDeliverer(table, sender, WebhookSigner(b"key"), lambda job: job.id.encode(), limits)
    task = asyncio.create_task(deliverer.run())
    while not task.done():
        await table.sweep()
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
