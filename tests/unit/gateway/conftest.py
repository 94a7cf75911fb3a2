"""A gateway on a SQLite table and a local store, with a runner of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.waiting import WITHIN
from triton_diffusers.api.description import ModelDescription
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.dialects.eas.tokens import is_signed_with
from triton_diffusers.gateway.jobs.directory import Announcement
from triton_diffusers.gateway.jobs.job import Bill, Claim, Job, JobError, Report
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.metrics import JobMetrics
from triton_diffusers.gateway.results import Results
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.gateway.signing import UrlSigner
from triton_diffusers.gateway.submission import MODELS
from triton_diffusers.gateway.webhooks.sender import WebhookSender
from triton_diffusers.gateway.webhooks.signature import WebhookSigner
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.settings import Settings
from triton_diffusers.storage.local import LocalStore

OUTPUTS: Mapping[str, Any] = {
    "prompt": "an apple",
    "parameters": {"steps": 20, "width": 500, "height": 100, "cfg_scale": 7.0},
    "use_blade": False,
    "profile": "exact",
    "warnings": ["a warning of the model"],
    "queue_seconds": 0.25,
    "run_seconds": 1.5,
}


@dataclass
class Gateway:
    """A gateway whose jobs the test itself runs."""

    service: Service
    client: httpx2.AsyncClient
    writer: ResultWriter
    store_folder: Path
    drawn: list[Job] = field(default_factory=list)

    @property
    def table(self) -> JobTable:
        return self.service.table

    async def claim(self) -> Claim:
        """Claim the next job."""
        (claim,) = await self.table.wait_for_claim("tests", "default", MODELS, 1, WITHIN)
        return claim

    async def draw(self, images: Sequence[bytes] | None = None, **outputs: Any) -> Job:
        """Run the next job to its end."""
        claim = await self.claim()
        return await self.finish(claim, images, **outputs)

    async def finish(self, claim: Claim, images: Sequence[bytes] | None = None, **outputs: Any) -> Job:
        """End a job with its images."""
        job = claim.job
        made = images or [f"image {number} of {job.id}".encode() for number in range(job.images)]
        reply = {
            **OUTPUTS,
            "seed": job.request["fields"]["seed"],
            "is_nsfw": [False] * job.images,
            "images": made,
            **outputs,
        }
        files = await self.writer.save(job, reply)
        kept = {name: value for name, value in reply.items() if not name.endswith(("images", "_base64"))}
        bill = Bill(megapixel_steps=job.work, image_steps=1, engine_seconds=1.5)
        return await self.table.finish(claim.lease, {"outputs": kept, "files": files}, bill)

    async def fail(self, message: str, code: int) -> Job:
        """End the next job with an error."""
        claim = await self.claim()
        return await self.table.fail(claim.lease, JobError(message=message, code=code), retryable=False)

    async def announce(
        self, *models: str, runner: str = "one", pool: str = "default", name: str = "paper", **facts: Any
    ) -> None:
        """Announce models as a runner does."""
        description = ModelDescription(name=name, **{"defaults": ModelDefaults(side=512), **facts}).to_json()
        announcement = Announcement(runner=runner, pool=pool, models=models or MODELS, description=description)
        await self.table.call(self.table.store.directory.announce, announcement)

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a job by the native interface."""
        reply = await self.client.post("/api/jobs", json={"prompt": "an apple", **fields})
        assert reply.status_code == 202, reply.text
        return dict(reply.json())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def gateway_settings() -> dict[str, Any]:
    """Return settings of the gateway, for tests to replace."""
    return {}


@pytest.fixture
async def gateway(tmp_path: Path, gateway_settings: dict[str, Any], anyio_backend: str) -> AsyncIterator[Gateway]:
    table = JobTable(open_store(f"sqlite:///{tmp_path / 'jobs.sqlite'}", JobTableSettings()))
    store = LocalStore(tmp_path / "store")
    settings = GatewaySettings(state_dir=tmp_path / "state", **gateway_settings)
    limits = Settings(link_allow_hosts="127.0.0.1,localhost")
    service = Service(
        table=table,
        results=Results(store, UrlSigner(b"key", 60)),
        limits=limits,
        settings=settings,
        metrics=JobMetrics(),
        authenticator=Authenticator(table, is_open=True, check_signature=is_signed_with),
        accounts=AccessStore(table.store.database),
        webhooks=WebhookSender(GuardedClient(limits), settings.webhook_seconds),
        webhook_signer=WebhookSigner(b"key"),
    )
    transport = httpx2.ASGITransport(create_app(service))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield Gateway(service, client, ResultWriter(store, 0), tmp_path / "store")
    await table.close()


async def ended(task: asyncio.Task[httpx2.Response]) -> httpx2.Response:
    """Return the answer of a request that was sent in a task."""
    return await asyncio.wait_for(task, WITHIN)


async def report(gateway: Gateway, claim: Claim, **news: Any) -> Any:
    """Report a job's news as a runner does; return the signals."""
    return await gateway.table.renew([Report(lease=claim.lease, **news)])
