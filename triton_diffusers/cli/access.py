"""The commands ``users``, ``teams``, ``keys`` and ``usage``: they work on the job table's database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_diffusers.cli.tables import time_cell, write_table

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from triton_diffusers.gateway.access.store import AccessStore
    from triton_diffusers.gateway.jobs.bounds import Bounds
    from triton_diffusers.gateway.jobs.interface import JobStore

COMMANDS = ("users", "teams", "keys", "usage")
_SQLITE = "sqlite:///"
_BOUNDS = {
    "per_minute": "in a minute",
    "per_day": "in a day",
    "per_month": "in a month",
    "in_flight": "queued and running at a time",
}
_NO_BOUND = "none"

Command = Callable[[argparse.Namespace, "JobStore", "AccessStore"], None]


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the four commands."""
    users = _group(commands, "users", "manage the users of the gateway")
    add = _command(users, "add", "make a user, and print a key of it", _add_user)
    add.add_argument("name")
    add.add_argument("--role", default="user", help="viewer, user, model-manager or admin (default: %(default)s)")
    add.add_argument("--team", default="", help="team of the user")
    add.add_argument("--weight", type=float, default=1.0, help="share of the queue (default: %(default)g)")
    _command(users, "list", "list users", _list_users)
    change = _command(users, "set", "change a user", _set_user)
    change.add_argument("name")
    change.add_argument("--role", help="viewer, user, model-manager or admin")
    change.add_argument("--team", help="team of the user; '' for none")
    change.add_argument("--weight", type=float, help="share of the queue")
    _add_bounds(change)
    for name, text in (("disable", "refuse a user's keys"), ("enable", "accept a user's keys again")):
        _command(users, name, text, _set_disabled).add_argument("name")

    teams = _group(commands, "teams", "manage the teams of the gateway")
    add = _command(teams, "add", "make a team", _add_team)
    add.add_argument("name")
    add.add_argument(
        "--weight", type=float, default=1.0, help="share of the queue of each member (default: %(default)g)"
    )
    _command(teams, "list", "list teams", _list_teams)
    change = _command(teams, "set", "change a team", _set_team)
    change.add_argument("name")
    change.add_argument("--weight", type=float, help="share of the queue of each member")
    _add_bounds(change)

    keys = _group(commands, "keys", "manage the API keys of the gateway")
    add = _command(keys, "add", "make a key, and print it", _add_key)
    add.add_argument("user")
    add.add_argument("--name", default="", help="what the key is for")
    add.add_argument(
        "--scope", action="append", default=[], help="native, reference, openai, a1111 or admin; repeatable"
    )
    add.add_argument("--model", action="append", default=[], help="model that it may be used for; repeatable")
    add.add_argument("--days", type=float, help="days until it expires")
    add.add_argument("--signs", action="store_true", help="keep it readable, to sign requests of PAI's SDK")
    _command(keys, "list", "list keys", _list_keys).add_argument("user", nargs="?", help="user (default: all)")
    change = _command(keys, "set", "replace the bounds of a key", _set_key)
    change.add_argument("id")
    _add_bounds(change)
    _command(keys, "revoke", "refuse a key from now on", _revoke_key).add_argument("id")

    _add_usage(commands)


def run(chosen: argparse.Namespace) -> int:
    """Run one of the commands; the exit code: 1 if it is refused, 2 if it could not begin."""
    try:
        from triton_diffusers.errors import TritonDiffusersError
        from triton_diffusers.gateway.access.store import AccessStore
        from triton_diffusers.settings import SettingsError

        store = _open(chosen.database)
    except ModuleNotFoundError as error:
        return _failed(f"{error.name!r} is missing; install it with: pip install 'triton-diffusers[gateway]'", 2)
    except (SettingsError, TritonDiffusersError, ValueError, OSError) as error:
        return _failed(str(error), 2)
    command: Command = chosen.run
    try:
        command(chosen, store, AccessStore(store.database))
    except TritonDiffusersError as error:
        return _failed(str(error), 1)
    finally:
        store.close()
    return 0


def _open(database: str) -> JobStore:
    """Return the job table. Raises: SettingsError: its file does not exist, so that nobody gets users of a new one."""
    from triton_diffusers.gateway.jobs.settings import JobTableSettings
    from triton_diffusers.gateway.jobs.stores import open_store
    from triton_diffusers.gateway.settings import GatewaySettings
    from triton_diffusers.settings import SettingsError

    settings = GatewaySettings.read()
    url = database or settings.database_url
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).is_file():
        others = sorted(settings.state_dir.expanduser().glob("*/jobs.sqlite"))
        rule = "there is no job table; start the gateway first, or name its table with --database"
        found = "".join(f"\n  --database {_SQLITE}{path}" for path in others)
        raise SettingsError(f"database: {url!r} is invalid: {rule}{' such as:' if found else ''}{found}")
    return open_store(url, JobTableSettings())


def _add_user(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.caller import SCOPES, Role
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    user = accounts.add_user(
        chosen.name, role=_role(chosen.role), team=chosen.team, weight=chosen.weight, actor=COMMAND_LINE
    )
    scopes = SCOPES if user.role is Role.ADMIN else ()
    print(accounts.add_key(user.name, "first key", scopes=scopes, actor=COMMAND_LINE).secret)


def _list_users(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    rows = [
        {
            "name": user.name,
            "role": str(user.role),
            "team": user.team,
            "weight": f"{user.weight:g}",
            "state": "disabled" if user.disabled else "",
            **_bounds_cells(user.bounds),
        }
        for user in accounts.users()
    ]
    write_table(rows, as_json=chosen.json)


def _set_user(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    accounts.set_user(
        chosen.name,
        role=None if chosen.role is None else _role(chosen.role),
        team=chosen.team,
        weight=chosen.weight,
        bounds=_bounds(chosen, accounts.user(chosen.name).bounds),
        actor=COMMAND_LINE,
    )


def _set_disabled(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    accounts.set_user(chosen.name, disabled=chosen.action == "disable", actor=COMMAND_LINE)


def _add_team(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    accounts.add_team(chosen.name, weight=chosen.weight, actor=COMMAND_LINE)


def _list_teams(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    rows = [
        {"name": team.name, "weight": f"{team.weight:g}", **_bounds_cells(team.bounds)} for team in accounts.teams()
    ]
    write_table(rows, as_json=chosen.json)


def _set_team(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    bounds = _bounds(chosen, accounts.team(chosen.name).bounds)
    accounts.set_team(chosen.name, weight=chosen.weight, bounds=bounds, actor=COMMAND_LINE)


def _add_key(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    new = accounts.add_key(
        chosen.user,
        chosen.name,
        scopes=chosen.scope,
        models=chosen.model,
        days=chosen.days,
        signs=chosen.signs,
        actor=COMMAND_LINE,
    )
    print(new.secret)


def _list_keys(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    rows = [
        {
            "id": key.id,
            "user": key.user,
            "name": key.name,
            "scopes": " ".join(key.scopes),
            "models": " ".join(key.models),
            "signs": "yes" if key.signs else "",
            "last used": time_cell(key.last_used),
            "expires": time_cell(key.expires),
            "revoked": time_cell(key.revoked),
            **_bounds_cells(key.bounds),
        }
        for key in accounts.keys(accounts.user(chosen.user).id if chosen.user else None)
    ]
    write_table(rows, as_json=chosen.json)


def _set_key(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    if (bounds := _bounds(chosen, accounts.key(chosen.id).bounds)) is not None:
        accounts.set_key_bounds(chosen.id, bounds, actor=COMMAND_LINE)


def _revoke_key(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.access.store import COMMAND_LINE

    accounts.revoke_key(chosen.id, actor=COMMAND_LINE)


def _usage(chosen: argparse.Namespace, store: JobStore, accounts: AccessStore) -> None:
    from triton_diffusers.gateway.usage import day_number, focus_csv, grouped, period

    first, last = period(chosen.first, chosen.last)
    sums = store.usage(None, day_number(first), day_number(last) + 1)
    rows = grouped(sums, [name.strip() for name in chosen.by.split(",") if name.strip()], accounts.names())
    if chosen.csv:
        sys.stdout.write(focus_csv(rows, first, last))
    else:
        write_table([_shown(row) for row in rows] if not chosen.json else rows, as_json=chosen.json)


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.items()}


def _role(name: str) -> Any:
    from triton_diffusers.errors import InvalidRequest
    from triton_diffusers.gateway.access.caller import Role

    if name not in (roles := [str(role) for role in Role]):
        raise InvalidRequest("role", name, f"must be one of: {', '.join(roles)}")
    return Role(name)


def _bounds(chosen: argparse.Namespace, old: Bounds) -> Bounds | None:
    """Return the old bounds with the given ones; None if none was given."""
    from dataclasses import replace

    given = {name: getattr(chosen, name) for name in _BOUNDS if getattr(chosen, name) is not None}
    if not given:
        return None
    return replace(old, **{name: None if value == _NO_BOUND else value for name, value in given.items()})


def _bounds_cells(bounds: Bounds) -> dict[str, str]:
    values = {name.replace("_", " "): getattr(bounds, name) for name in _BOUNDS}
    return {name: "" if value is None else f"{value:g}" for name, value in values.items()}


def _bound(text: str) -> float | str:
    if text == _NO_BOUND:
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number of megapixel-steps, or {_NO_BOUND}") from None


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a day such as 2026-11-30") from None


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}; see docs/access.md.")
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def _command(
    group: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Command
) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    _add_common(parser, run)
    return parser


def _add_common(parser: argparse.ArgumentParser, run: Command) -> None:
    parser.set_defaults(run=run)
    parser.add_argument(
        "--database",
        metavar="URL",
        default="",
        help="job table of the gateway (default: $TRITON_DIFFUSERS_GATEWAY_DATABASE, else jobs.sqlite in the state"
        " directory)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    for name, text in _BOUNDS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_bound,
            metavar="WORK",
            help=f"megapixel-steps {text}; '{_NO_BOUND}' for no bound",
        )


def _add_usage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    usage = commands.add_parser(
        "usage", help="report what was drawn", description="Report the work that was billed; see docs/access.md."
    )
    usage.add_argument(
        "--by", default="day", metavar="NAMES", help="day, user, team, key, model, with commas (default: %(default)s)"
    )
    usage.add_argument("--first", type=_day, metavar="DAY", help="first day of UTC (default: 30 days until the last)")
    usage.add_argument("--last", type=_day, metavar="DAY", help="last day (default: today)")
    usage.add_argument("--csv", action="store_true", help="print CSV with the column names of FOCUS")
    _add_common(usage, _usage)


def _failed(message: str, code: int) -> int:
    print(f"triton-diffusers: {message}", file=sys.stderr)
    return code
