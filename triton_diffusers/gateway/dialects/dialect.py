"""The interface of a dialect, and helpers of its routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.service import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Routes of one protocol, and the form of its errors; ``owns`` returns True for a path of the dialect."""

    name: str
    router: APIRouter
    owns: Callable[[str], bool]
    render: Callable[[Fault], Response]


def service_of(request: Request) -> Service:
    """Return the service of the application that got the request."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(service_of)]

JSON_BODY: Final = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
"""OpenAPI's description of a body that is a JSON object of any members."""


async def read_body(request: Request, read: Callable[[bytes], T]) -> T:
    """Return what ``read`` makes of a request's body, in a thread: with images it has many megabytes."""
    return await asyncio.to_thread(read, await request.body())
