"""Keys over HTTP: who is let in, how, and what nobody is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from tests.unit.gateway.access.conftest import ACTOR, Users
from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import LOCAL, OPENAI, Role
from triton_diffusers.gateway.access.failures import FailedAttempts
from triton_diffusers.gateway.faults import Refused

pytestmark = pytest.mark.anyio

SIGNED_DATE = "Sun, 29 Nov 2026 07:20:37 GMT"


def basic(user: str, key: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"


async def test_without_users_everybody_is_the_local_owner(gateway: Gateway) -> None:
    me = (await gateway.client.get("/api/me", headers={"Authorization": "Bearer anything"})).json()
    assert (me["user"], me["role"], me["key"]) == ("local", "admin", "")
    assert (await gateway.client.post("/api/me/keys", json={})).status_code == 409


@pytest.mark.parametrize(
    ("address", "any_address", "is_let_in"),
    [
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("203.0.113.9", False, False),
        ("localhost.example", False, False),
        ("203.0.113.9", True, True),
    ],
)
async def test_without_users_only_this_machine_is_let_in(
    gateway: Gateway, address: str, any_address: bool, is_let_in: bool
) -> None:
    authenticator = Authenticator(gateway.table, is_open=True, any_address=any_address)
    connection = _connection("/api/jobs", {})
    connection.scope["client"] = (address, 1)
    if is_let_in:
        assert await authenticator.authenticate(connection) == LOCAL
    else:
        with pytest.raises(Refused, match="key: it is missing"):
            await authenticator.authenticate(connection)


async def test_with_a_user_a_key_is_needed(gateway: Gateway, users: Users) -> None:
    for path in ("/api/jobs", "/api/me", "/v1/models", "/api/admin/users", "/nothing"):
        reply = await gateway.client.get(path)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "key: it is missing" in reply.text
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json"):
        assert (await gateway.client.get(path)).status_code == 200


async def test_a_key_is_accepted_in_every_form(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    for headers in (
        {"Authorization": key},
        {"Authorization": f"Bearer {key}"},
        {"Authorization": basic("ann", key)},
        {"Authorization": basic("", key)},
        {"X-API-Key": key},
        {"api-key": key},
        {"Authorization": "", "api-key": key},
    ):
        reply = await gateway.client.get("/api/me", headers=headers)
        assert reply.status_code == 200, headers
        assert reply.json()["user"] == "ann"


async def test_a_wrong_key_is_refused_whatever_is_wrong(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    other = users.add("bob")
    wrong = [key[:-1] + ("A" if key[-1] != "A" else "B"), other[:16] + key[16:], "x", key + "x"]
    bodies = set()
    for headers in (*({"Authorization": f"Bearer {each}"} for each in wrong), {"Authorization": basic("bob", key)}):
        reply = await gateway.client.get("/api/me", headers=headers)
        assert reply.status_code == 401
        bodies.add(reply.text)
    assert len(bodies) == 1


async def test_a_key_ends_at_once(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    assert (await users.call(key, "GET", "/api/me")).status_code == 200
    users.accounts.set_user("ann", disabled=True, actor=ACTOR)
    assert (await users.call(key, "GET", "/api/me")).status_code == 401
    users.accounts.set_user("ann", disabled=False, actor=ACTOR)
    assert (await users.call(key, "GET", "/api/me")).status_code == 200
    users.accounts.revoke_key(key.split("_")[1], actor=ACTOR)
    assert (await users.call(key, "GET", "/api/me")).status_code == 401


async def test_a_key_is_good_for_its_scopes_models_and_role(gateway: Gateway, users: Users) -> None:
    users.add("ann")
    narrow = users.accounts.add_key("ann", scopes=[OPENAI], actor=ACTOR).secret
    assert (await users.call(narrow, "GET", "/v1/models")).status_code == 200
    assert (await users.call(narrow, "GET", "/api/jobs")).status_code == 403
    assert (await users.call(narrow, "POST", "/", json={})).json()["error_code"] == 403
    bound = users.accounts.add_key("ann", models=["sd_base"], actor=ACTOR).secret
    reply = await users.call(bound, "POST", "/api/jobs", json={"prompt": "a", "model": "ensemble"})
    assert (reply.status_code, reply.json()["error"]["rule"]) == (403, "this key may be used for: sd_base")
    await users.submit(bound, model="sd_base")
    viewer = users.add("eve", role=Role.VIEWER)
    assert (await users.call(viewer, "GET", "/api/jobs")).json()["jobs"] == []
    assert (await users.call(viewer, "POST", "/api/jobs", json={"prompt": "a"})).status_code == 403


async def test_a_signed_request_is_its_keys(gateway: Gateway, users: Users) -> None:
    users.add("ann")
    signing = users.accounts.add_key("ann", signs=True, actor=ACTOR)
    body = b'{"prompt": "a red apple", "steps": 5}'
    headers = _signed(signing.secret, body, "/api/predict/svc")
    reply = await gateway.client.get("/api/predict/svc", headers=headers | {"Authorization": "EAS d3Jvbmc="})
    assert reply.status_code == 401
    caller = await gateway.service.authenticator.authenticate(_connection("/api/predict/svc", headers))
    assert (caller.user, caller.key_id) == ("ann", signing.key.id)
    for path in ("/api/jobs", "/api/predict/other"):
        with pytest.raises(Exception, match="key: it is unknown"):
            await gateway.service.authenticator.authenticate(_connection(path, headers))
    plain = users.accounts.add_key("ann", actor=ACTOR).secret
    unkept = _signed(plain, body, "/api/predict/svc")
    with pytest.raises(Exception, match="key: it is unknown"):
        await gateway.service.authenticator.authenticate(_connection("/api/predict/svc", unkept))


def _signed(key: str, body: bytes, path: str) -> dict[str, str]:
    digest = hashlib.md5(body).hexdigest()
    text = f"POST\n{digest}\napplication/octet-stream\n{SIGNED_DATE}\n{path}"
    signature = base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha1")).decode()
    return {
        "Content-MD5": digest,
        "Content-Type": "application/octet-stream",
        "Date": SIGNED_DATE,
        "Authorization": f"EAS {signature}",
    }


def _connection(path: str, headers: dict[str, str]) -> Any:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "method": "POST", "path": path, "headers": raw, "query_string": b""})


async def test_guessing_is_bounded_and_locks_nobody_out(gateway: Gateway, users: Users) -> None:
    key, idle = users.add("ann"), users.add("bob")
    clock = [0.0]
    gateway.service.authenticator.failures = FailedAttempts(5, clock=lambda: clock[0])
    assert (await users.call(key, "GET", "/api/me")).status_code == 200
    statuses = [(await users.call(f"guess {n}", "GET", "/api/me")).status_code for n in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    reply = await users.call("guess", "GET", "/api/me")
    assert reply.headers["retry-after"] == "12"
    assert (await users.call(key, "GET", "/api/me")).status_code == 200
    # A key that this gateway has not seen is not looked up: a guess could be right.
    assert (await users.call(idle, "GET", "/api/me")).status_code == 429
    clock[0] = 13.0
    assert (await users.call(idle, "GET", "/api/me")).status_code == 200


async def test_no_key_is_logged_or_answered(gateway: Gateway, users: Users, caplog: pytest.LogCaptureFixture) -> None:
    key = users.add("ann")
    wrong = "td_" + "0" * 12 + "_" + "s" * 43
    with caplog.at_level(logging.DEBUG):
        for each in (key, wrong, f"Digest {wrong}"):
            for method, path in (("GET", "/api/me"), ("GET", "/nothing"), ("POST", "/api/jobs"), ("PATCH", "/api/me")):
                reply = await gateway.client.request(method, path, headers={"Authorization": each}, json={"steps": "x"})
                assert each not in reply.text
                assert each not in str(reply.headers)
    assert key not in caplog.text
    assert wrong not in caplog.text


async def test_a_large_body_is_not_read_before_its_sender_is_known(gateway: Gateway, users: Users) -> None:
    sent = []

    async def body() -> Any:
        for number in range(100):
            sent.append(number)
            yield bytes(1_000_000)

    for headers, status in (({}, 401), ({"Authorization": f"Bearer {users.add('eve', role=Role.VIEWER)}"}, 403)):
        sent.clear()
        reply = await gateway.client.post("/api/jobs", content=body(), headers=headers)
        assert (reply.status_code, sent) == (status, [])


async def test_the_work_of_a_key_is_bounded_with_a_time_to_come_back(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    work = (await users.submit(key))["work"]
    change = {"bounds": {"per_minute": work * 1.5}}
    assert (await users.call(users.admin_key, "PATCH", "/api/admin/users/ann", json=change)).status_code == 200
    await users.submit(key)
    reply = await users.call(key, "POST", "/api/jobs", json={"prompt": "an apple"})
    assert reply.status_code == 429
    assert "the user may start" in reply.json()["error"]["message"]
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    use = (await users.call(key, "GET", "/api/me")).json()["use"]["user"]
    assert use["bounds"] == {**dict.fromkeys(("per_day", "per_month", "in_flight")), **change["bounds"]}
    assert use["in_flight"] == pytest.approx(2 * work)
    await users.submit(users.admin_key)


async def test_owners_share_the_queue_by_their_weights(gateway: Gateway, users: Users) -> None:
    users.accounts.add_team("studio", weight=2.0, actor=ACTOR)
    light, heavy = users.add("ann"), users.add("bob", team="studio", weight=2.0)
    for _ in range(10):
        await users.submit(light)
        await users.submit(heavy)
    owners = [(await gateway.claim()).job.owner for _ in range(10)]
    assert owners.count(users.accounts.user("bob").id) == 8
