"""The routes of accounts and of the administration."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.gateway.access.conftest import ACTOR, Users
from tests.unit.gateway.conftest import Gateway
from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.caller import LOCAL_OWNER, SCOPES
from triton_diffusers.gateway.access.failures import FailedAttempts

pytestmark = pytest.mark.anyio


async def test_the_first_user_takes_over_what_was_drawn_without_a_login(gateway: Gateway) -> None:
    before = await gateway.submit()
    reply = await gateway.client.post("/api/admin/users", json={"name": "root", "role": "admin"})
    assert reply.status_code == 201
    key = reply.json()["first_key"]["key"]
    assert set(reply.json()["first_key"]["scopes"]) == set(SCOPES)
    assert (await gateway.client.get("/api/jobs")).status_code == 401
    listed = (await gateway.client.get("/api/jobs", headers={"X-API-Key": key})).json()["jobs"]
    assert [job["id"] for job in listed] == [before["id"]]
    assert (await gateway.table.get(None, before["id"])).owner == LOCAL_OWNER


async def test_a_gateway_on_the_network_is_closed_until_it_is_set_up(gateway: Gateway) -> None:
    authenticator = gateway.service.authenticator
    assert isinstance(authenticator, Authenticator)
    authenticator._is_open = False
    assert (await gateway.client.get("/api/me")).status_code == 401
    code = gateway.service.accounts.new_setup_code()
    wrong = await gateway.client.post("/api/setup", json={"code": "wrong", "name": "root"})
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (404, "code: it is unknown, used or expired")
    made = await gateway.client.post("/api/setup", json={"code": code, "name": "root"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert (await gateway.client.get("/api/me", headers={"api-key": key})).json()["role"] == "admin"
    assert (await gateway.client.post("/api/setup", json={"code": code, "name": "other"})).status_code == 404


async def test_guesses_of_a_code_are_bounded(gateway: Gateway) -> None:
    gateway.service.authenticator.failures = FailedAttempts(2, clock=lambda: 0.0)
    wrong = {"code": "wrong", "name": "root"}
    statuses = [(await gateway.client.post("/api/setup", json=wrong)).status_code for _ in range(3)]
    assert statuses == [404, 404, 429]


async def test_an_administrator_manages_users_teams_and_keys(gateway: Gateway, users: Users) -> None:
    async def admin(method: str, path: str, **fields: Any) -> Any:
        reply = await users.call(users.admin_key, method, f"/api/admin{path}", **fields)
        assert reply.status_code in (200, 201), reply.text
        return reply.json()

    assert (await admin("POST", "/teams", json={"name": "studio", "weight": 2}))["weight"] == 2
    bounds = {"per_minute": None, "per_day": 5.0, "per_month": None, "in_flight": None}
    assert (await admin("PATCH", "/teams/studio", json={"bounds": bounds}))["bounds"] == bounds
    made = await admin("POST", "/users", json={"name": "ann", "team": "studio"})
    assert (made["role"], made["team"], "admin" in made["first_key"]["scopes"]) == ("user", "studio", False)
    assert (await admin("PATCH", "/users/ann", json={"role": "model-manager"}))["role"] == "model-manager"
    key = await admin("POST", "/keys", json={"user": "ann", "name": "ci", "scopes": ["native"], "days": 1})
    assert key["key"].startswith(f"td_{key['id']}_")
    assert (await admin("PUT", f"/keys/{key['id']}/bounds", json=bounds))["bounds"] == bounds
    assert (await admin("DELETE", f"/keys/{key['id']}"))["revoked"] is not None
    listed = await admin("GET", "/keys")
    assert {each["name"] for each in listed} == {"", "first key", "ci"}
    assert not any("key" in each or "secret" in each or "digest" in each for each in listed)
    assert [each["name"] for each in await admin("GET", "/users")] == ["ann", "root"]
    assert [each["name"] for each in await admin("GET", "/teams")] == ["studio"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/users", {"name": "root"}, 400, "user: 'root' is invalid: there is a user of this name"),
        ("POST", "/users", {"name": "a", "x": 1}, 400, "x: 1 is invalid: Extra inputs are not permitted"),
        ("POST", "/users", {"name": "a", "role": "boss"}, 400, "role: 'boss' is invalid: "),
        (
            "PATCH",
            "/users/root",
            {"disabled": True},
            400,
            "user: 'root' is invalid: an administrator must remain",
        ),
        ("PATCH", "/users/nobody", {"disabled": True}, 404, "user 'nobody' does not exist"),
        ("PATCH", "/users/root", {"bounds": {"per_day": -1}}, 400, "per_day: -1 is invalid: "),
        ("POST", "/keys", {"user": "nobody"}, 404, "user 'nobody' does not exist"),
        ("DELETE", "/keys/nothing", None, 404, "key 'nothing' does not exist"),
    ],
)
async def test_mistakes_of_an_administrator(
    gateway: Gateway, users: Users, method: str, path: str, body: Any, status: int, message: str
) -> None:
    reply = await users.call(users.admin_key, method, f"/api/admin{path}", json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["message"].startswith(message)


async def test_a_user_makes_and_revokes_keys_with_no_more_rights(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    made = await users.call(key, "POST", "/api/me/keys", json={"name": "ci", "scopes": ["openai"], "signs": True})
    assert (made.status_code, made.json()["signs"]) == (201, True)
    narrow = users.accounts.add_key("ann", scopes=["native"], models=["sd_base"], actor=ACTOR).secret
    inherited = await users.call(narrow, "POST", "/api/me/keys", json={})
    assert (inherited.json()["scopes"], inherited.json()["models"]) == (["native"], ["sd_base"])
    for wanted, field in (({"scopes": ["openai"]}, "scopes"), ({"models": ["sd_controlnet"]}, "models")):
        reply = await users.call(narrow, "POST", "/api/me/keys", json=wanted)
        assert (reply.status_code, reply.json()["error"]["field"]) == (400, field)
    only_admin = users.accounts.add_key("root", scopes=["admin"], actor=ACTOR).secret
    assert (await users.call(only_admin, "POST", "/api/me/keys", json={})).status_code == 400
    listed = (await users.call(key, "GET", "/api/me/keys")).json()
    assert [each["user"] for each in listed] == ["ann"] * 4
    assert (await users.call(key, "DELETE", f"/api/me/keys/{made.json()['id']}")).json()["revoked"] is not None
    other = users.admin_key.split("_")[1]
    assert (await users.call(key, "DELETE", f"/api/me/keys/{other}")).status_code == 404
    assert (await users.call(users.admin_key, "GET", "/api/me")).status_code == 200


async def test_usage_is_ones_own_and_everybodys_for_an_administrator(gateway: Gateway, users: Users) -> None:
    users.accounts.add_team("studio", actor=ACTOR)
    ann, bob = users.add("ann", team="studio"), users.add("bob")
    for key, steps in ((ann, 10), (ann, 20), (bob, 40)):
        await users.submit(key, steps=steps, width=100, height=100)
        await gateway.draw()
    own = (await users.call(ann, "GET", "/api/usage?by=user,model")).json()
    assert [(row["user"], row["model"], row["jobs"]) for row in own["usage"]] == [("ann", "ensemble", 2)]
    assert own["usage"][0]["megapixel_steps"] == pytest.approx(0.3)
    everybody = (await users.call(users.admin_key, "GET", "/api/usage?by=team,user,day")).json()["usage"]
    today = datetime.now(UTC).date().isoformat()
    assert [list(row.values())[:4] for row in everybody] == [[today, "ann", "studio", 2], [today, "bob", "", 1]]
    by_key = (await users.call(bob, "GET", "/api/usage?by=key")).json()["usage"]
    assert [row["key"] for row in by_key] == [bob.split("_")[1]]
    past = (await users.call(ann, "GET", "/api/usage?first=2020-01-01&last=2020-01-02")).json()
    assert past == {"first": "2020-01-01", "last": "2020-01-02", "usage": []}


async def test_usage_as_csv_has_the_columns_of_focus(gateway: Gateway, users: Users) -> None:
    ann = users.add("ann")
    named = users.accounts.add_key("ann", "=1+1", actor=ACTOR).secret
    await users.submit(named)
    await gateway.draw()
    reply = await users.call(ann, "GET", "/api/usage?by=day,user,key,model&format=csv")
    assert reply.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(reply.text))
    today = datetime.now(UTC).date()
    assert row["ChargePeriodStart"] == f"{today.isoformat()}T00:00:00Z"
    assert (row["x_User"], row["ResourceName"], row["ConsumedUnit"]) == ("ann", "ensemble", "Megapixel-Steps")
    assert float(row["ConsumedQuantity"]) > 0
    assert not row["x_Key"].startswith("=")


@pytest.mark.parametrize(
    ("query", "field"), [("by=colour", "by"), ("first=2026-02-02&last=2026-02-01", "first"), ("format=xml", "format")]
)
async def test_an_invalid_report_is_refused(gateway: Gateway, query: str, field: str) -> None:
    reply = await gateway.client.get(f"/api/usage?{query}")
    assert (reply.status_code, reply.json()["error"]["field"]) == (400, field)
