"""Services: their names, modes, models and tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.settings import GatewaySettings, NamedService
from triton_diffusers.settings import SettingsError

pytestmark = pytest.mark.anyio

BODY = json.dumps({"task_id": "a", "prompt": "an apple"}).encode()


def signed(token: str, service: str, body: bytes, date: str = "Sun, 29 Nov 2026 07:20:37 GMT") -> dict[str, str]:
    """Return the headers that the SDK sends with a request."""
    digest, kind = hashlib.md5(body, usedforsecurity=False).hexdigest(), "application/octet-stream"
    text = "\n".join(("POST", digest, kind, date, f"/api/predict/{service}"))
    signature = base64.b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()
    return {"Content-MD5": digest, "Content-Type": kind, "Date": date, "Authorization": f"EAS {signature}"}


def test_services_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "a = sd_base, b=ensemble_controlnet:async, c=:async:dG9rZW4=, d=ensemble::x"
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_SERVICES", listed)
    settings = GatewaySettings.read()
    assert settings.services == {
        "a": NamedService(model="sd_base"),
        "b": NamedService(model="ensemble_controlnet", mode="async"),
        "c": NamedService(mode="async", token="dG9rZW4="),
        "d": NamedService(model="ensemble", token="x"),
    }
    assert "dG9rZW4=" not in repr(settings)
    assert settings.service("My_Control_Async") == NamedService(model="ensemble_controlnet", mode="async")
    assert settings.service("draw") == NamedService()
    others = GatewaySettings(services={"a": NamedService(), "*": NamedService(model="sd_base", token="t")})
    assert others.service("a") == NamedService()
    assert others.service("b_async") == NamedService(model="sd_base", mode="async", token="t")


@pytest.mark.parametrize("listed", ["a=sdxl", "a=sd_base:later"])
def test_unknown_models_and_modes_are_refused(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_SERVICES", listed)
    with pytest.raises(SettingsError, match=r"TRITON_DIFFUSERS_GATEWAY_SERVICES: .* is invalid"):
        GatewaySettings.read()


@pytest.mark.parametrize("gateway_settings", [{"services": "secret=ensemble:async:NDJk,open=ensemble:async"}])
async def test_a_service_with_a_token_is_its_holders(gateway: Gateway) -> None:
    path = "/api/predict/secret"
    for headers in (
        {"Authorization": "NDJk"},
        {"Authorization": "Bearer NDJk"},
        signed("NDJk", "secret", BODY),
    ):
        assert (await gateway.client.post(path, content=BODY, headers=headers)).status_code == 200
    reads = [("GET", "?_attrs_=true"), ("GET", "/sink"), ("GET", "/sink?_watch_=true")]
    writes = [("POST", ""), ("POST", "/sink"), ("PUT", "/sink?_indexes_=1"), ("DELETE", "?_indexes_=1")]
    for method, rest in (*reads, *writes, ("DELETE", "/sink?_indexes_=1")):
        for authorization in ({}, {"Authorization": "other"}, signed("other", "secret", BODY)):
            reply = await gateway.client.request(method, f"{path}{rest}", content=BODY, headers=authorization)
            assert reply.status_code == 401, (method, rest)
            message = "Authorization: it is not the token of this service"
            assert reply.json() == {"success": 0, "error_code": 401, "error_msg": message}
    assert (await gateway.client.post("/api/predict/open", content=BODY)).status_code == 200


async def test_a_body_that_was_damaged_on_its_way_is_refused(gateway: Gateway) -> None:
    headers = signed("NDJk", "draw_async", BODY)
    assert (await gateway.client.post("/api/predict/draw_async", content=BODY, headers=headers)).status_code == 200
    for service in ("draw_async", "draw"):
        reply = await gateway.client.post(f"/api/predict/{service}", content=BODY + b" ", headers=headers)
        assert reply.status_code == 460
        assert reply.json()["error_msg"].endswith("' is invalid: it is not that of the body")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/predict/draw"), ("GET", "/api/predict/draw/sink"), ("PUT", "/api/predict/draw/sink?_indexes_=1")],
)
async def test_a_synchronous_service_has_no_queue(gateway: Gateway, method: str, path: str) -> None:
    reply = await gateway.client.request(method, path)
    assert reply.status_code == 404
    assert reply.json()["error_msg"] == "service: 'draw' is invalid: it is synchronous, so it has no queues"


@pytest.mark.parametrize("gateway_settings", [{"services": "draw=sd_base:sync,later=:async"}])
async def test_a_path_behind_the_name_changes_nothing(gateway: Gateway) -> None:
    waiting = asyncio.create_task(gateway.client.post("/api/predict/draw/some/path", content=BODY))
    assert (await gateway.draw()).model == "sd_base"
    assert (await asyncio.wait_for(waiting, 60)).json()["success"] == 1
    assert (await gateway.client.post("/api/predict/later/other", content=BODY)).status_code == 200
    for path in ("sdapi/v1/txt2img", "v1/images/generations"):
        reply = await gateway.client.post(f"/api/predict/later/{path}", content=BODY)
        message = f"path: {path!r} is invalid: that protocol is not spoken in services"
        assert (reply.status_code, reply.json()["error_msg"]) == (404, message)


async def test_errors_of_a_service_have_the_references_form(gateway: Gateway) -> None:
    cases: list[tuple[Any, int]] = [(b"{", 460), (json.dumps({"prompt": "a", "steps": 900}).encode(), 460)]
    for body, code in cases:
        reply = await gateway.client.post("/api/predict/draw_async", content=body)
        assert (reply.status_code, reply.json()["error_code"]) == (code, code)
