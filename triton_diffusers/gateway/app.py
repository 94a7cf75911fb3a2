"""The gateway's ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from triton_diffusers.api.statuses import INVALID_FIELD
from triton_diffusers.errors import TritonDiffusersError
from triton_diffusers.gateway import health
from triton_diffusers.gateway.access import admin_routes
from triton_diffusers.gateway.access import routes as account_routes
from triton_diffusers.gateway.access.authenticator import UNAUTHORIZED
from triton_diffusers.gateway.access.declaration import guarded_routes
from triton_diffusers.gateway.access.middleware import AccessMiddleware
from triton_diffusers.gateway.dialects import native, native_streams, native_webhooks, reference
from triton_diffusers.gateway.dialects.a1111.dialect import DIALECT as A1111_DIALECT
from triton_diffusers.gateway.dialects.dialect import Dialect
from triton_diffusers.gateway.dialects.eas import routes as eas
from triton_diffusers.gateway.dialects.openai import routes as openai
from triton_diffusers.gateway.faults import Fault, Refused, fault_of
from triton_diffusers.gateway.housekeeping import Housekeeper
from triton_diffusers.gateway.middleware.addresses import AddressMiddleware
from triton_diffusers.gateway.middleware.body import BodyLimits, BodyMiddleware
from triton_diffusers.gateway.middleware.count import CountMiddleware
from triton_diffusers.gateway.middleware.faults import FaultMiddleware
from triton_diffusers.gateway.middleware.origin import OriginMiddleware
from triton_diffusers.gateway.middleware.request_ids import RequestIdMiddleware
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.webhooks.deliverer import DeliveryLimits, WebhookDeliverer
from triton_diffusers.gateway.webhooks.message import message_body

# The first that owns a path answers its errors; the last owns all.
DIALECTS: Sequence[Dialect] = (reference.DIALECT, eas.DIALECT, openai.DIALECT, A1111_DIALECT, native.DIALECT)
_MEGABYTE = 10**6


def create_app(service: Service, hosts: Sequence[str] = ()) -> FastAPI:
    """Return the application, which closes the service's table at its end; ``hosts``: see ``OriginMiddleware``."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(Housekeeper(service.table, service.results).run()),
            asyncio.create_task(service.metrics.follow(service.table)),
            asyncio.create_task(service.defaults.follow(service.table)),
            asyncio.create_task(webhook_deliverer(service).run()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.table.close()

    app = FastAPI(title="Triton Diffusers", lifespan=lifespan, openapi_url=None)
    app.state.service = service
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    app.include_router(native_streams.router)
    app.include_router(native_webhooks.router)
    app.include_router(account_routes.router)
    app.include_router(admin_routes.router)
    app.include_router(health.router)
    _handle_errors(app)
    _add_middleware(app, service, hosts)
    return app


def webhook_deliverer(service: Service) -> WebhookDeliverer:
    """Return the deliverer of the service's webhooks."""
    settings = service.settings
    return WebhookDeliverer(
        service.table,
        service.webhooks,
        service.webhook_signer,
        lambda job: message_body(job, service.results),
        DeliveryLimits(places=settings.webhook_places, retry_seconds=settings.webhook_retry_seconds),
        lambda outcome: service.metrics.webhooks.labels(outcome).inc(),
    )


def _add_middleware(app: FastAPI, service: Service, hosts: Sequence[str]) -> None:
    """Add the middleware; the last one added sees a request first."""
    settings = service.settings
    limits = BodyLimits(
        max_bytes=int(settings.max_body_megabytes * _MEGABYTE),
        max_total_bytes=int(settings.max_bodies_megabytes * _MEGABYTE),
        max_seconds=settings.body_seconds,
    )
    app.add_middleware(BodyMiddleware, limits=limits)
    app.add_middleware(
        AccessMiddleware, authenticator=service.authenticator, routes=guarded_routes(app.routes), render=render
    )
    app.add_middleware(OriginMiddleware, hosts=hosts)
    app.add_middleware(AddressMiddleware, max_requests=settings.max_address_requests)
    app.add_middleware(FaultMiddleware, render=render)
    app.add_middleware(CountMiddleware, requests=service.metrics.requests)
    app.add_middleware(RequestIdMiddleware)


def _handle_errors(app: FastAPI) -> None:
    async def http(request: Request, error: Any) -> Response:
        return render(request.url.path, Fault(status=error.status_code, message=f"{request.url.path}: {error.detail}"))

    async def invalid(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        field, rule = str(first["loc"][-1]), str(first["msg"])
        message = f"{field}: {first['input']!r:.80} is invalid: {rule}"
        fault = Fault(status=400, code=INVALID_FIELD, message=message, field=field, rule=rule)
        return render(request.url.path, fault)

    async def any_other(request: Request, error: Exception) -> Response:
        return render(request.url.path, fault_of(error))

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(TritonDiffusersError, any_other)
    app.add_exception_handler(Refused, any_other)


def render(path: str, fault: Fault) -> Response:
    """Return the response for a fault in the form of the dialect that owns the path."""
    dialect = next(dialect for dialect in DIALECTS if dialect.owns(path))
    response = dialect.render(fault)
    if fault.status == UNAUTHORIZED:
        # A dialect may ask for passwords; in browsers that opens a window, which nobody else wants.
        response.headers.setdefault("WWW-Authenticate", "Bearer")
    return response
