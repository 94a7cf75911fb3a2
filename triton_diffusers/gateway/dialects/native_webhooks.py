"""Webhooks of jobs: the owner's secret, and delivery once more."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request

from triton_diffusers.gateway.access.caller import NATIVE, Role, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.dialect import ServiceDependency
from triton_diffusers.gateway.dialects.native_views import JobView, job_view

router = APIRouter(prefix="/api", tags=["webhooks"], dependencies=[requires(NATIVE)])


class SecretView(BaseModel):
    """The secret that signs the caller's webhooks."""

    secret: str = Field(description="`whsec_` and base64, as libraries of Standard Webhooks take it.")


@router.get(
    "/webhook-secret",
    dependencies=[requires(NATIVE, read=Role.USER)],
    summary="Return the secret that signs the caller's webhooks",
)
async def secret(request: Request, service: ServiceDependency) -> SecretView:
    """Return the secret with which receivers check that a webhook comes from this gateway."""
    return SecretView(secret=service.webhook_signer.secret(caller_of(request).owner))


@router.post("/jobs/{job_id}/webhook/redeliver", summary="Deliver a job's webhook again")
async def redeliver(request: Request, service: ServiceDependency, job_id: str) -> JobView:
    """Deliver the webhook of an ended job now, under its former id, whether it was delivered or given up before."""
    owner = caller_of(request).owner
    await service.table.call(service.table.store.outbox.redeliver, owner, job_id)
    return job_view(await service.table.get(owner, job_id), service.results, service.base_url(request))
