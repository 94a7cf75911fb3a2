"""Users, teams and keys, on both databases."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.unit.gateway.access.conftest import ACTOR
from tests.unit.gateway.jobs.tables import Table
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.access import rows
from triton_diffusers.gateway.access.caller import LOCAL_OWNER, SCOPES, Role
from triton_diffusers.gateway.access.keys import digest, key_id_of
from triton_diffusers.gateway.access.logins import Logins
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.jobs.bounds import Bounds, subject


@pytest.fixture
def admin(accounts: AccessStore) -> str:
    return accounts.add_user("root", role=Role.ADMIN, actor=ACTOR).name


def test_the_first_user_is_an_admin_and_owns_what_was_drawn_before(accounts: AccessStore) -> None:
    assert not accounts.users()
    with pytest.raises(InvalidRequest, match="role: 'user' is invalid: the first user must be an admin"):
        accounts.add_user("ann", actor=ACTOR)
    assert not accounts.users()
    assert accounts.add_user("root", role=Role.ADMIN, actor=ACTOR).id == LOCAL_OWNER
    assert accounts.users()
    second = accounts.add_user("ann", actor=ACTOR)
    assert second.id != LOCAL_OWNER
    assert [user.name for user in accounts.users()] == ["ann", "root"]


def test_a_user_is_changed_but_never_replaced(accounts: AccessStore, admin: str) -> None:
    accounts.add_team("studio", weight=2.0, actor=ACTOR)
    accounts.add_user("ann", team="studio", actor=ACTOR)
    with pytest.raises(InvalidRequest, match="user: 'ann' is invalid: there is a user of this name"):
        accounts.add_user("ann", actor=ACTOR)
    bounds = Bounds(per_day=5.0)
    changed = accounts.set_user("ann", role=Role.VIEWER, team="", weight=3.0, bounds=bounds, actor=ACTOR)
    assert (changed.role, changed.team, changed.weight, changed.bounds) == (Role.VIEWER, "", 3.0, bounds)
    assert accounts.set_user("ann", disabled=True, actor=ACTOR).disabled
    assert accounts.user("ann").weight == 3.0
    with pytest.raises(NotFound, match="team 'x' does not exist"):
        accounts.set_user("ann", team="x", actor=ACTOR)
    with pytest.raises(NotFound, match="user 'x' does not exist"):
        accounts.set_user("x", actor=ACTOR)


def test_a_last_administrator_is_left(accounts: AccessStore, admin: str) -> None:
    for change in ({"disabled": True}, {"role": Role.USER}):
        with pytest.raises(InvalidRequest, match="user: 'root' is invalid: an administrator must remain"):
            accounts.set_user("root", actor=ACTOR, **change)
    accounts.add_user("ann", role=Role.ADMIN, actor=ACTOR)
    assert accounts.set_user("root", role=Role.USER, actor=ACTOR).role is Role.USER


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "x" * 65, "a\0", "é"])
def test_names_are_plain(accounts: AccessStore, name: str) -> None:
    for add in (accounts.add_user, accounts.add_team):
        with pytest.raises(InvalidRequest, match="must be 1 to 64 letters"):
            add(name, actor=ACTOR)


def test_a_key_is_kept_as_a_hash_unless_it_signs(accounts: AccessStore, admin: str, table: Table) -> None:
    plain = accounts.add_key("root", "laptop", actor=ACTOR)
    signing = accounts.add_key("root", signs=True, actor=ACTOR)
    assert key_id_of(plain.secret) == plain.key.id
    found = table.store.database.read(lambda session: session.rows("SELECT * FROM api_keys ORDER BY created, id"))
    kept = {row["id"]: (row["digest"], row["secret"]) for row in found}
    assert kept[plain.key.id] == (digest(plain.secret), "")
    assert kept[signing.key.id] == (digest(signing.secret), signing.secret)
    logins = Logins(table.store.database)
    assert [login.caller.key_id for login in logins.signing()] == [signing.key.id]


def test_a_user_may_have_a_bounded_number_of_keys(
    accounts: AccessStore, admin: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_MAX_KEYS", 2)
    first = accounts.add_key("root", actor=ACTOR).key
    accounts.add_key("root", days=1.0, actor=ACTOR)
    refused = "keys: 2 is invalid: a user may have at most 2; revoke one first"
    with pytest.raises(InvalidRequest, match=refused):
        accounts.add_key("root", actor=ACTOR)
    accounts.revoke_key(first.id, actor=ACTOR)
    accounts.add_key("root", actor=ACTOR)
    with pytest.raises(InvalidRequest, match=refused):
        accounts.add_key("root", actor=ACTOR)
    table.step_clock(2 * 86_400.0)
    assert accounts.add_key("root", actor=ACTOR)


def test_a_login_has_the_rights_of_its_key_and_its_user(accounts: AccessStore, admin: str, table: Table) -> None:
    accounts.add_team("studio", weight=2.0, actor=ACTOR)
    accounts.add_user("ann", team="studio", weight=1.5, actor=ACTOR)
    key = accounts.add_key("ann", scopes=["openai"], models=["sd_base"], actor=ACTOR).key
    login = Logins(table.store.database).find(key.id)
    assert login is not None
    caller = login.caller
    assert (caller.user, caller.role, caller.weight, caller.key_id) == ("ann", Role.USER, 3.0, key.id)
    assert (caller.scopes, caller.models) == ({"openai"}, {"sd_base"})
    assert accounts.names()[caller.team] == "studio"
    assert set(accounts.add_key("ann", actor=ACTOR).key.scopes) == set(SCOPES) - {"admin"}


def _revoke(accounts: AccessStore, key_id: str, table: Table) -> None:
    accounts.revoke_key(key_id, actor=ACTOR)


def _disable(accounts: AccessStore, key_id: str, table: Table) -> None:
    accounts.set_user("ann", disabled=True, actor=ACTOR)


def _expire(accounts: AccessStore, key_id: str, table: Table) -> None:
    table.step_clock(2 * 86_400.0)


@pytest.mark.parametrize("end", [_revoke, _disable, _expire])
def test_a_key_ends_at_once(
    accounts: AccessStore, admin: str, table: Table, end: Callable[[AccessStore, str, Table], None]
) -> None:
    accounts.add_user("ann", actor=ACTOR)
    key = accounts.add_key("ann", days=1.0, signs=True, actor=ACTOR).key
    logins = Logins(table.store.database)
    assert logins.find(key.id)
    end(accounts, key.id, table)
    assert logins.find(key.id) is None
    assert logins.signing() == []
    assert accounts.key(key.id).user == "ann"


def test_the_last_use_of_a_key_is_noted_each_minute(accounts: AccessStore, admin: str, table: Table) -> None:
    key = accounts.add_key("root", actor=ACTOR).key
    logins = Logins(table.store.database)
    stale = []
    for _ in range(3):
        login = logins.find(key.id)
        assert login is not None
        stale.append(login.is_stale)
        if login.is_stale:
            logins.used(key.id)
        table.step_clock(40.0)
    assert stale == [True, False, True]
    assert accounts.key(key.id).last_used is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scopes": ["all"]}, "scopes: 'all' is invalid: must be some of: native, reference, openai, a1111, admin"),
        ({"models": ["../x"]}, "models: '../x' is invalid: must be names of models"),
        ({"days": 0.0}, "days: 0.0 is invalid: must be a number above 0 and at most 36500"),
        ({"days": 1e308}, "days: 1e+308 is invalid: must be a number above 0 and at most 36500"),
        ({"days": float("nan")}, "days: nan is invalid: must be a number above 0 and at most 36500"),
        ({"name": "x" * 65}, "name: 'xxx"),
        ({"name": "a\nb"}, "name: 'a\\nb' is invalid: must be at most 64 printable characters"),
    ],
)
def test_an_invalid_key_is_refused(accounts: AccessStore, admin: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        accounts.add_key("root", actor=ACTOR, **fields)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
    assert accounts.keys() == []


def test_only_the_owner_revokes_a_key(accounts: AccessStore, admin: str) -> None:
    key = accounts.add_key("root", actor=ACTOR).key
    other = accounts.add_user("ann", actor=ACTOR)
    with pytest.raises(NotFound):
        accounts.revoke_key(key.id, other.id, actor=ACTOR)
    first = accounts.revoke_key(key.id, LOCAL_OWNER, actor=ACTOR).revoked
    assert first is not None
    assert accounts.revoke_key(key.id, actor=ACTOR).revoked == first
    assert accounts.keys(other.id) == []


def test_bounds_are_of_teams_users_and_keys(accounts: AccessStore, admin: str, table: Table) -> None:
    accounts.add_team("studio", actor=ACTOR)
    key = accounts.add_key("root", actor=ACTOR).key
    bounds = Bounds(per_minute=1.0, per_day=2.0, per_month=3.0, in_flight=4.0)
    assert accounts.set_team("studio", bounds=bounds, weight=2.0, actor=ACTOR).bounds == bounds
    assert accounts.set_key_bounds(key.id, bounds, actor=ACTOR).bounds == bounds
    assert accounts.set_user("root", bounds=bounds, actor=ACTOR).bounds == bounds
    for of in (subject("user", LOCAL_OWNER), subject("key", key.id), subject("team", accounts.team("studio").id)):
        assert table.store.bounds_use(of).bounds == bounds
    with pytest.raises(NotFound):
        accounts.set_key_bounds("unknown", bounds, actor=ACTOR)


def test_a_set_up_code_makes_the_first_user_once(accounts: AccessStore, table: Table) -> None:
    codes = [accounts.new_setup_code(), accounts.new_setup_code()]
    assert None not in codes
    assert codes[0] != codes[1]
    with pytest.raises(NotFound, match="code: it is unknown, used or expired"):
        accounts.set_up("wrong", "root")
    new = accounts.set_up(codes[0] or "", "root")
    assert key_id_of(new.secret) == new.key.id
    assert set(new.key.scopes) == set(SCOPES)
    for code in codes:
        with pytest.raises(NotFound):
            accounts.set_up(code or "", "other")
    assert accounts.new_setup_code() is None
    assert [user.role for user in accounts.users()] == [Role.ADMIN]


def test_a_set_up_code_ends_after_a_day(accounts: AccessStore, table: Table) -> None:
    code = accounts.new_setup_code()
    table.step_clock(86_401.0)
    with pytest.raises(NotFound):
        accounts.set_up(code or "", "root")


def test_acts_are_logged_without_secrets(accounts: AccessStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        accounts.add_user("root", role=Role.ADMIN, actor="the boss")
        new = accounts.add_key("root", "laptop", signs=True, actor="the boss")
        accounts.set_user("root", bounds=Bounds(per_day=1.0), actor="the boss")
        accounts.revoke_key(new.key.id, actor="the boss")
    acts = [record.getMessage() for record in caplog.records if record.name.endswith(".audit")]
    assert acts[0] == "the boss adds user root, role admin"
    assert acts[1].startswith(f"the boss adds key {new.key.id} of root, name laptop, ")
    assert acts[3] == f"the boss revokes key {new.key.id}"
    assert len(acts) == 4
    assert new.secret not in caplog.text


@pytest.mark.parametrize("weight", [0.0, -1.0, 5e-324, 1e308, float("inf"), float("nan")])
def test_weights_are_bounded(accounts: AccessStore, admin: str, weight: float) -> None:
    accounts.add_team("studio", actor=ACTOR)
    for change in (accounts.set_user, accounts.set_team):
        with pytest.raises(InvalidRequest, match=r"^weight: .* is invalid: must be a number between 0.001 and 1000$"):
            change("root" if change == accounts.set_user else "studio", weight=weight, actor=ACTOR)  # type: ignore[operator]
