"""Keys in headers, and the bound on failed attempts."""

from __future__ import annotations

import base64

import pytest

from triton_diffusers.gateway.access.caller import Caller
from triton_diffusers.gateway.access.failures import FailedAttempts
from triton_diffusers.gateway.access.keys import Credentials, credentials_of, is_same, key_id_of, new_key
from triton_diffusers.gateway.access.logins import Login
from triton_diffusers.gateway.settings import GatewaySettings


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"authorization": ""}, None),
        ({"authorization": "Basic "}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "EAS "}, None),
        ({"authorization": basic("")}, None),
        ({"authorization": basic(":")}, None),
        ({"authorization": "td_1"}, Credentials(key="td_1")),
        ({"authorization": "Bearer td_1"}, Credentials(key="td_1")),
        ({"authorization": "bearer  td_1 "}, Credentials(key="td_1")),
        ({"authorization": basic("ann:td_1")}, Credentials(key="td_1", user="ann")),
        ({"authorization": basic(":td_1")}, Credentials(key="td_1")),
        ({"authorization": basic("ann")}, Credentials(user="ann")),
        ({"authorization": "Basic !"}, Credentials(key="!")),
        ({"authorization": "EAS c2ln"}, Credentials(signature="c2ln")),
        ({"authorization": "Digest a b"}, Credentials(key="Digest a b")),
        ({"x-api-key": "td_1"}, Credentials(key="td_1")),
        ({"api-key": "td_1"}, Credentials(key="td_1")),
        ({"authorization": "Basic ", "api-key": "td_1"}, Credentials(key="td_1")),
        ({"authorization": "Bearer td_1", "api-key": "td_2"}, Credentials(key="td_1")),
    ],
)
def test_a_key_is_found_where_clients_put_it(headers: dict[str, str], expected: Credentials | None) -> None:
    assert credentials_of(headers) == expected


def test_keys_are_random_and_name_their_id() -> None:
    made = [new_key() for _ in range(100)]
    assert len({key for _, key in made}) == len({key_id for key_id, _ in made}) == 100
    assert all(key_id_of(key) == key_id for key_id, key in made)
    for text in ("", "td_", made[0][1][:-1], made[0][1] + "a", made[0][1].replace("td_", "TD_"), "é" * 59):
        assert key_id_of(text) == ""


def test_no_representation_shows_a_secret() -> None:
    caller = Caller(owner="o", user="u")
    credentials = Credentials(key="k-secret", signature="s-secret")
    login = Login(caller=caller, digest="d-secret", secret="s-secret", is_stale=False)
    settings = GatewaySettings(
        database="postgresql://u:p-secret@db/jobs", secret="s-secret", services={"a": {"token": "t-secret"}}
    )
    for shown in (credentials, login, settings, settings.services):
        assert "-secret" not in repr(shown)


def test_texts_are_compared_whatever_they_hold() -> None:
    assert is_same("a", "a")
    assert not is_same("a", "b")
    assert not is_same("é\ud800", "a")


def test_failed_attempts_are_bounded_by_address() -> None:
    now = [0.0]
    failures = FailedAttempts(3, clock=lambda: now[0])
    for _ in range(3):
        assert failures.wait_seconds("1.2.3.4") == 0.0
        failures.add("1.2.3.4")
    assert failures.wait_seconds("1.2.3.4") == pytest.approx(20.0)
    assert failures.wait_seconds("1.2.3.5") == 0.0
    now[0] = 10.0
    assert failures.wait_seconds("1.2.3.4") == pytest.approx(10.0)
    now[0] = 21.0
    assert failures.wait_seconds("1.2.3.4") == 0.0


def test_an_ipv6_network_is_one_address_and_a_mapped_one_is_the_ipv4_address() -> None:
    failures = FailedAttempts(1, clock=lambda: 0.0)
    failures.add("2001:db8::1")
    assert failures.wait_seconds("2001:db8::ffff") > 0.0
    assert failures.wait_seconds("2001:db8:0:1::1") == 0.0
    failures.add("::ffff:1.2.3.4")
    assert failures.wait_seconds("1.2.3.4") > 0.0
    failures.add("a socket")
    assert failures.wait_seconds("a socket") > 0.0


def test_the_memory_of_failed_attempts_is_bounded() -> None:
    failures = FailedAttempts(1, clock=lambda: 0.0)
    for number in range(20_000):
        failures.add(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(failures._failures) == 10_000
