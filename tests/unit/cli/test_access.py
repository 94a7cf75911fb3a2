"""The commands ``users``, ``teams``, ``keys`` and ``usage``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, new_job
from triton_diffusers.cli.main import main
from triton_diffusers.gateway.access.keys import key_id_of
from triton_diffusers.gateway.access.logins import Logins
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

Run = Callable[..., str]


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    open_store(url, JobTableSettings()).close()
    return url


@pytest.fixture
def run(database: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command, which must succeed, and returns its output."""

    def run_one(*words: str) -> str:
        assert main([*words, "--database", database]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run_one


def test_users_are_made_with_a_key_that_works(run: Run, database: str) -> None:
    root = run("users", "add", "root", "--role", "admin").strip()
    run("teams", "add", "studio", "--weight", "2")
    ann = run("users", "add", "ann", "--team", "studio").strip()
    store = open_store(database, JobTableSettings())
    logins = [Logins(store.database).find(key_id_of(key)) for key in (root, ann)]
    store.close()
    assert [login and (login.caller.user, "admin" in login.caller.scopes, login.caller.weight) for login in logins] == [
        ("root", True, 1.0),
        ("ann", False, 2.0),
    ]
    assert run("users", "list").splitlines() == [
        "name  role   team    weight",
        "ann   user   studio  1",
        "root  admin          1",
    ]


def test_users_teams_and_keys_are_changed(run: Run) -> None:
    run("users", "add", "root", "--role", "admin")
    run("teams", "add", "studio")
    run("users", "add", "ann")
    run("users", "set", "ann", "--team", "studio", "--role", "viewer", "--per-day", "5000", "--in-flight", "10")
    run("users", "set", "ann", "--in-flight", "none", "--per-minute", "7.5")
    run("users", "disable", "ann")
    (ann, _) = json.loads(run("users", "list", "--json"))
    assert (ann["team"], ann["role"], ann["state"]) == ("studio", "viewer", "disabled")
    assert (ann["per day"], ann["in flight"], ann["per minute"]) == ("5000", "", "7.5")
    run("users", "enable", "ann")
    assert json.loads(run("users", "list", "--json"))[0]["state"] == ""
    run("teams", "set", "studio", "--weight", "3", "--per-month", "1e6")
    assert run("teams", "list").splitlines()[1].split() == ["studio", "3", "1e+06"]


def test_keys_are_listed_without_secrets_and_revoked(run: Run) -> None:
    run("users", "add", "root", "--role", "admin")
    key = run(
        *("keys", "add", "root", "--name", "ci", "--scope", "native", "--scope", "openai", "--model", MODEL),
        *("--days", "2", "--signs"),
    ).strip()
    key_id = key_id_of(key)
    run("keys", "set", key_id, "--per-day", "3")
    run("keys", "revoke", key_id)
    listed = run("keys", "list", "root")
    assert key not in listed
    line = next(line for line in listed.splitlines() if line.startswith(key_id))
    assert " ci " in line
    assert "native openai" in line
    (entry,) = (each for each in json.loads(run("keys", "list", "--json")) if each["id"] == key_id)
    assert (entry["models"], entry["signs"], entry["per day"]) == (MODEL, "yes", "3")
    assert entry["revoked"]
    assert entry["expires"]


def test_usage_is_reported(run: Run, database: str) -> None:
    run("users", "add", "root", "--role", "admin")
    store = open_store(database, JobTableSettings())
    store.submit("local", [new_job()])
    (claim,) = store.claim("runner", "default", [MODEL], 1)
    store.finish(claim.lease, RESULT, BILL)
    store.close()
    assert run("usage", "--by", "user,model").splitlines() == [
        "user  model    jobs  megapixel_steps  image_steps  engine_seconds",
        "root  sd_base  1     5                20           1.5",
    ]
    (row,) = csv.DictReader(io.StringIO(run("usage", "--by", "user", "--csv")))
    assert (row["x_User"], row["ConsumedQuantity"]) == ("root", "5.0")
    assert json.loads(run("usage", "--by", "key", "--json"))[0]["jobs"] == 1
    assert run("usage", "--first", "2020-01-01", "--last", "2020-01-02") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["users", "add", "ann"], "role: 'user' is invalid: the first user must be an admin"),
        (["users", "add", "ann", "--role", "boss"], "role: 'boss' is invalid: must be one of: viewer, user"),
        (["users", "disable", "ann"], "user 'ann' does not exist"),
        (["keys", "revoke", "x"], "key 'x' does not exist"),
        (["usage", "--by", "colour"], "by: 'colour' is invalid: must be some of: day, user"),
    ],
)
def test_a_refused_command_says_why(
    words: list[str], message: str, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--database", database]) == 1
    assert capsys.readouterr().err.startswith(f"triton-diffusers: {message}")


@pytest.mark.parametrize("words", [["users", "set", "a", "--per-day", "x"], ["usage", "--first", "x"], ["users"]])
def test_invalid_arguments_end_the_command(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)


def test_a_missing_table_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_GATEWAY_STATE_DIR", str(tmp_path))
    served = tmp_path / "serve-8000" / "jobs.sqlite"
    served.parent.mkdir()
    served.touch()
    assert main(["users", "list"]) == 2
    error = capsys.readouterr().err
    assert "there is no job table; start the gateway first, or name its table with --database such as:" in error
    assert f"--database sqlite:///{served}" in error
    assert not (tmp_path / "jobs.sqlite").exists()
    assert main(["users", "list", "--database", "mysql://a"]) == 2
