"""The commands ``gateway`` and ``runner``."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from triton_diffusers.util.notice import NOTICE

if TYPE_CHECKING:  # slow to import, and not needed for --help
    from triton_diffusers.gateway.settings import GatewaySettings
    from triton_diffusers.settings import Settings

GATEWAY_DESCRIPTION = """\
Serve HTTP to clients: accept requests as jobs, tell of their progress, hand out their images. Runners draw them.
Settings are environment variables, TRITON_DIFFUSERS_GATEWAY_* and TRITON_DIFFUSERS_STORE*; see docs/gateway.md."""
RUNNER_DESCRIPTION = """\
Claim jobs from the job table, and have the Triton server beside this runner draw them. The table and the result store
are those of the gateway: the same environment variables."""
_PREFETCHED_IMAGES = 2  # so that Triton need not wait for the next claim
_LEVELS = ("debug", "info", "notice", "warning", "error")


def add_gateway_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gateway``."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port", type=int, default=8080, metavar="PORT", help="port (default: %(default)s; 0 takes a free one)"
    )
    _add_common(parser)


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``runner``."""
    parser.add_argument(
        "--triton",
        default="127.0.0.1:8001",
        metavar="ADDRESS",
        help="gRPC address of the Triton server (default: %(default)s)",
    )
    parser.add_argument(
        "--name",
        default=socket.gethostname(),
        help="name of this runner, the same at each start and no other runner's (default: the host's name)",
    )
    parser.add_argument("--pool", default="default", help="pool whose jobs to run (default: %(default)s)")
    parser.add_argument(
        "--max-images",
        type=_positive,
        metavar="NUMBER",
        help="images of all jobs held at once (default: TRITON_DIFFUSERS_MAX_IMAGES_IN_FLIGHT, and 2 that wait)",
    )
    parser.add_argument(
        "--exit-timeout",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="how long jobs may run on after a stop, before they are handed back (default: %(default)g)",
    )
    _add_common(parser)


def run_gateway(chosen: argparse.Namespace) -> int:
    """Run a gateway; the exit code: 2 if it could not begin."""
    return _run(chosen, _gateway)


def run_runner(chosen: argparse.Namespace) -> int:
    """Run a runner; the exit code: 2 if it could not begin."""
    return _run(chosen, _runner)


def _gateway(chosen: argparse.Namespace) -> None:
    from triton_diffusers.gateway.server import run_gateway as run

    settings, limits = _settings(chosen)
    run(chosen.host, chosen.port, settings, limits)


def _runner(chosen: argparse.Namespace) -> None:
    from triton_diffusers.runner.command import run_runner as run
    from triton_diffusers.runner.settings import RunnerOptions

    settings, limits = _settings(chosen)
    options = RunnerOptions(
        name=chosen.name,
        triton=chosen.triton,
        pool=chosen.pool,
        max_images=chosen.max_images or limits.max_images_in_flight + _PREFETCHED_IMAGES,
        exit_seconds=chosen.exit_timeout,
    )
    run(options, settings, limits)


def _settings(chosen: argparse.Namespace) -> tuple[GatewaySettings, Settings]:
    from triton_diffusers.gateway.settings import GatewaySettings
    from triton_diffusers.settings import Settings

    settings = GatewaySettings.read()
    if chosen.database:
        settings = settings.model_copy(update={"database": chosen.database})
    return settings, Settings.read()


def _run(chosen: argparse.Namespace, command: Callable[[argparse.Namespace], None]) -> int:
    from triton_diffusers.settings import SettingsError

    logging.basicConfig(
        stream=sys.stderr,
        level=NOTICE if chosen.log_level == "notice" else chosen.log_level.upper(),
        format="triton-diffusers: %(asctime)s %(levelname)s %(message)s",
    )
    try:
        command(chosen)
    except ModuleNotFoundError as error:
        return _failed(f"{error.name!r} is missing; install it with: pip install 'triton-diffusers[gateway]'")
    except (SettingsError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _failed(message: str) -> int:
    print(f"triton-diffusers: {message}", file=sys.stderr)
    return 2


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        metavar="URL",
        default="",
        help="job table: sqlite:///FILE or postgresql://… (default: $TRITON_DIFFUSERS_GATEWAY_DATABASE, else"
        " jobs.sqlite in the state directory)",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="what is logged (default: %(default)s)")


def _positive(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
