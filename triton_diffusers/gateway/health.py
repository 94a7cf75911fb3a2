"""Health and metrics, for orchestrators and monitors."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triton_diffusers.gateway.access.declaration import PUBLIC
from triton_diffusers.gateway.dialects.dialect import ServiceDependency
from triton_diffusers.gateway.jobs.errors import TableUnavailable

router = APIRouter(tags=["operations"], dependencies=[PUBLIC])

_READY_SECONDS = 5.0


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Return success while the process answers."""
    return {"status": "live"}


@router.get("/health/ready")
async def ready(service: ServiceDependency) -> JSONResponse:
    """Return success if jobs can be accepted, else status 503 and the reason."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await service.table.load()
    except (TableUnavailable, TimeoutError) as error:
        reason = str(error) or f"the job table does not answer within {_READY_SECONDS:g} s"
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDependency) -> Response:
    """Return the gateway's metrics for Prometheus."""
    return Response(await service.metrics.page(service.table), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """Return the description of all routes."""
    return JSONResponse(request.app.openapi())
