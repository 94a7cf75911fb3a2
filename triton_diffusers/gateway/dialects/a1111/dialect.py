"""The dialect: its routes, and the paths that it owns."""

from __future__ import annotations

from fastapi import APIRouter

from triton_diffusers.gateway.dialects.a1111 import detection, image_tools, lists, routes
from triton_diffusers.gateway.dialects.a1111.errors import render
from triton_diffusers.gateway.dialects.dialect import Dialect

_PREFIXES = ("/sdapi/", "/controlnet/", "/internal/")


def _router() -> APIRouter:
    router = APIRouter()
    for part in (routes, lists, image_tools, detection):
        router.include_router(part.router)
    return router


DIALECT = Dialect(routes.NAME, _router(), lambda path: path.startswith(_PREFIXES), render)
