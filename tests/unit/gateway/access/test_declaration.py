"""Declarations of access: every route has one, and the middleware enforces them."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.requests import HTTPConnection, Request

from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import ADMIN, LOCAL, NATIVE, OPENAI, SCOPES, Caller, Role, caller_of
from triton_diffusers.gateway.access.declaration import PUBLIC, guarded_routes, requires
from triton_diffusers.gateway.access.middleware import AccessMiddleware
from triton_diffusers.gateway.app import create_app, render
from triton_diffusers.gateway.middleware.faults import FaultMiddleware

pytestmark = pytest.mark.anyio

PUBLIC_PATHS = {"/health/live", "/health/ready", "/metrics", "/openapi.json", "/api/setup"}
SIGNED_PATHS = {"/api/jobs/{job_id}/images/{name}"}


async def test_every_route_declares_what_it_needs(gateway: Gateway) -> None:
    routes = guarded_routes(create_app(gateway.service).routes)
    assert len(routes) > 20
    assert {route.path for route in routes if route.declaration.public} == PUBLIC_PATHS
    assert {route.path for route in routes if route.declaration.signed} == SIGNED_PATHS
    assert {route.declaration.scope for route in routes if not route.declaration.public} <= {"", *SCOPES}


@pytest.mark.parametrize("kind", ["http", "websocket", "included"])
def test_an_application_with_an_undeclared_route_is_refused(kind: str) -> None:
    app = FastAPI(openapi_url=None)
    router = APIRouter(dependencies=[PUBLIC])
    router.add_api_route("/fine", lambda: None)
    app.include_router(router, prefix="/a")
    if kind == "http":
        app.add_api_route("/forgotten", lambda: None)
    elif kind == "websocket":
        app.add_api_websocket_route("/forgotten", lambda socket: None)
    else:
        other = APIRouter()
        other.add_api_route("/forgotten", lambda: None)
        app.include_router(other)
    with pytest.raises(ValueError, match="/forgotten: the route declares no access"):
        guarded_routes(app.routes)


class Someone(Authenticator):
    """Lets everybody in as one caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller, self.asked = caller, 0

    async def authenticate(self, connection: HTTPConnection) -> Caller:
        self.asked += 1
        return self.caller


def guarded(authenticator: Authenticator) -> FastAPI:
    app = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/jobs", dependencies=[requires(NATIVE)])

    async def owner(request: Request) -> str:
        return caller_of(request).owner

    async def caller(request: Request) -> bool:
        return caller_of(request) is None

    async def socket(socket: WebSocket) -> None:
        await socket.accept()

    router.add_api_route("", owner, methods=["GET", "POST"])
    router.add_api_route("/admin", owner, dependencies=[requires(ADMIN, read=Role.ADMIN, write=Role.ADMIN)])
    router.add_api_route("/image", caller, dependencies=[requires(NATIVE, signed=True)])
    router.add_api_route("/health", caller, dependencies=[PUBLIC])
    router.add_api_websocket_route("/socket", socket)
    app.include_router(router)
    app.add_middleware(AccessMiddleware, authenticator=authenticator, routes=guarded_routes(app.routes), render=render)
    app.add_middleware(FaultMiddleware, render=render)
    return app


def client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway")


ANN = replace(LOCAL, owner="ann", role=Role.USER, scopes=frozenset((NATIVE,)))


@pytest.mark.parametrize(
    ("caller", "method", "path", "status"),
    [
        (ANN, "GET", "/jobs", 200),
        (ANN, "POST", "/jobs", 200),
        (replace(ANN, role=Role.VIEWER), "GET", "/jobs", 200),
        (replace(ANN, role=Role.VIEWER), "POST", "/jobs", 403),
        (replace(ANN, scopes=frozenset((OPENAI,))), "GET", "/jobs", 403),
        (ANN, "GET", "/jobs/admin", 403),
        (replace(ANN, role=Role.ADMIN), "GET", "/jobs/admin", 403),
        (replace(ANN, scopes=frozenset((ADMIN,))), "GET", "/jobs/admin", 403),
        (replace(ANN, role=Role.ADMIN, scopes=frozenset((ADMIN,))), "GET", "/jobs/admin", 200),
        (ANN, "DELETE", "/jobs", 405),
        (ANN, "GET", "/elsewhere", 404),
    ],
)
async def test_a_route_lets_in_whom_it_declares(caller: Caller, method: str, path: str, status: int) -> None:
    async with client(guarded(Someone(caller))) as calls:
        reply = await calls.request(method, path)
    assert reply.status_code == status
    if status == 200:
        assert reply.json() == "ann"


async def test_public_routes_and_signed_urls_ask_nobody() -> None:
    authenticator = Someone(ANN)
    async with client(guarded(authenticator)) as calls:
        for path in ("/jobs/health", "/jobs/image?signature=x"):
            assert (await calls.get(path)).json() is True
        assert authenticator.asked == 0
        assert (await calls.get("/jobs/image?x=signature")).json() is False
        assert authenticator.asked == 1


@pytest.mark.parametrize(
    ("extensions", "refusal"),
    [({}, ("websocket.close", None)), ({"websocket.http.response": {}}, ("websocket.http.response.start", 403))],
)
async def test_a_websocket_is_denied_to_whom_its_route_does_not_let_in(
    extensions: dict[str, object], refusal: tuple[str, int | None]
) -> None:
    scope = {"type": "websocket", "path": "/jobs/socket", "query_string": b"", "headers": [], "subprotocols": []}
    for caller, expected in ((ANN, ("websocket.accept", None)), (replace(ANN, scopes=frozenset()), refusal)):
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, object], sent: list[dict[str, object]] = sent) -> None:
            sent.append(message)

        await guarded(Someone(caller))({**scope, "extensions": extensions}, receive, send)
        assert (sent[0]["type"], sent[0].get("status")) == expected


async def test_a_request_that_passed_no_check_fails() -> None:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/jobs", lambda: "ann", dependencies=[requires(NATIVE)])
    async with client(app) as calls:
        with pytest.raises(RuntimeError, match="/jobs: access was not checked"):
            await calls.get("/jobs")


def test_each_role_includes_the_ones_before_it() -> None:
    rights = {role: [other for other in Role if role.includes(other)] for role in Role}
    assert rights[Role.VIEWER] == [Role.VIEWER]
    assert rights[Role.MODEL_MANAGER] == [Role.VIEWER, Role.USER, Role.MODEL_MANAGER]
    assert rights[Role.ADMIN] == list(Role)
