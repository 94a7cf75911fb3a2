"""The program: its arguments, its errors and its exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from tqdm.contrib.logging import logging_redirect_tqdm

from triton_diffusers_client.cli import commands
from triton_diffusers_client.cli.generate_arguments import add_generate_arguments
from triton_diffusers_client.cli.outputs import output_path
from triton_diffusers_client.cli.report import say
from triton_diffusers_client.client import Client
from triton_diffusers_client.connection import (
    API_KEY_VARIABLE,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
    URL_VARIABLE,
)
from triton_diffusers_client.errors import ClientError, RequestTimeoutError, UnreachableError
from triton_diffusers_client.progress import JobState

_DISTRIBUTION = "triton-diffusers-client"

FAILED = 1
UNAVAILABLE = 3
TIMED_OUT = 4
_INTERRUPTED = 130  # 128 + SIGINT, as in shells

_EXIT_CODES = """\
exit codes: 0 success; 1 failed, and the same request would fail again; 2 wrong usage; 3 the server is busy, restarting
or away: try again later; 4 the time was over; 130 Ctrl-C; 143 SIGTERM."""
_JOB_HELP = "a job's id, or the task id of the newest one, as `generate` and `jobs` show them"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Each request is a line of httpx2's at this level.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    command: Callable[[Client, argparse.Namespace], int] = args.command
    try:
        client = Client(
            args.url,
            model=args.model,
            timeout=args.timeout,
            retries=args.retries,
            api_key=args.api_key,
            headers=dict(args.headers),
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        with client, logging_redirect_tqdm():
            return command(client, args)
    except BrokenPipeError:
        # The reader of the output is gone; Python must not fail again when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except UnreachableError as error:
        url = args.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        say(f"{parser.prog}: {error}\nIs the server running? --url or ${URL_VARIABLE} says where (now: {url}).")
        return UNAVAILABLE
    except (argparse.ArgumentTypeError, ClientError, OSError, ValueError) as error:
        say(f"{parser.prog}: {error}")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return _INTERRUPTED


def exit_code_of(error: Exception) -> int:
    """Return the exit code for an error."""
    if isinstance(error, RequestTimeoutError):
        return TIMED_OUT
    return UNAVAILABLE if isinstance(error, ClientError) and error.retryable else FAILED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it stores the function to call as ``command``."""
    parser = argparse.ArgumentParser(
        prog=_DISTRIBUTION, description="Generate images with a Triton Diffusers server.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(_DISTRIBUTION)}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    common = _common_parser()

    def add(name: str, command: Callable[[Client, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        description = f"{text[0].upper()}{text[1:]}."
        subparser: argparse.ArgumentParser = subparsers.add_parser(
            name, parents=[common], help=text, description=description, epilog=_EXIT_CODES
        )
        subparser.set_defaults(command=command)
        return subparser

    generate = add("generate", commands.generate, "generate images")
    add_generate_arguments(generate)
    generate.add_argument(
        "--no-wait",
        action="store_true",
        help="print the job's id and end; `watch` fetches its images (not at a Triton without a gateway)",
    )
    watch = add("watch", commands.watch, "show the progress of a job until it ends, and write its images")
    watch.add_argument("name", metavar="JOB", help=_JOB_HELP)
    watch.add_argument(
        "-o",
        "--output",
        type=output_path,
        metavar="FILE",
        help="file to write or replace; several images become FILE-1, FILE-2, …; or a folder (default: TASK_ID.FORMAT)",
    )
    for name, command, text in (
        ("progress", commands.progress, "show the progress of a job"),
        ("cancel", commands.cancel, "cancel a job"),
        ("delete", commands.delete, "delete an ended job and its images at a gateway"),
    ):
        add(name, command, text).add_argument("name", metavar="JOB", help=_JOB_HELP)
    jobs = add("jobs", commands.jobs, "list the jobs of the server, newest first")
    jobs.add_argument(
        "--state",
        dest="states",
        action="append",
        default=[],
        choices=[state.value for state in JobState],
        help="only jobs in this state; may be given several times",
    )
    jobs.add_argument("--task-id", default="", metavar="ID", help="only jobs with this task id")
    jobs.add_argument("--limit", type=int, default=50, metavar="N", help="number of jobs (default: %(default)s)")
    return parser


def _common_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        help="http://HOST:PORT or https://…, of a gateway or a Triton; grpc://… or grpcs://… of a Triton "
        f"(default: ${URL_VARIABLE}, else {DEFAULT_URL})",
    )
    group.add_argument(
        "--model",
        help="model (default: ensemble, which translates Chinese prompts, or sd_base if the server has no ensemble); "
        "with ControlNets, sd_controlnet stands in for sd_base and ensemble_controlnet for ensemble",
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"sent as `authorization: Bearer KEY` (default: ${API_KEY_VARIABLE}, which other users cannot see)",
    )
    group.add_argument(
        "--header",
        dest="headers",
        action="append",
        default=[],
        type=_header,
        metavar="NAME:VALUE",
        help="a header to send with every call (gRPC: metadata); may be given several times",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="time after which to give up and cancel the job (default: %(default)g)",
    )
    group.add_argument(
        "--retries",
        type=int,
        default=DEFAULT_RETRIES,
        metavar="N",
        help="retries if the server is busy, restarting or unreachable (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("it must be like 'X-Api-Key: …'")  # the value may be a secret
    return name.strip(), value.strip()
