"""The command line: ``triton-diffusers-client generate "a red apple" -o apple.png``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from triton_diffusers_client.client import DEFAULT_RETRIES, DEFAULT_TIMEOUT, DEFAULT_URL, Client
from triton_diffusers_client.errors import ClientError, UnreachableError
from triton_diffusers_client.generate_arguments import add_generate_arguments, model_of, options_of
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.interruption import Interruption
from triton_diffusers_client.job import Job
from triton_diffusers_client.outputs import control_paths_for, output_path, paths_for
from triton_diffusers_client.progress import Progress
from triton_diffusers_client.progress_bar import ProgressBar

URL_VARIABLE = "TRITON_DIFFUSERS_URL"
API_KEY_VARIABLE = "TRITON_DIFFUSERS_API_KEY"

_POLL_SECONDS = 0.125
_DISTRIBUTION = "triton-diffusers-client"

_FAILED = 1
_INTERRUPTED = 130  # 128 + SIGINT, as in shells
_SIGNALLED = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 (failed), 2 (wrong usage), 130 (Ctrl-C) or 143 (SIGTERM)."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    command: Callable[[Client, argparse.Namespace], int] = args.command
    try:
        client = Client(
            args.url,
            model=args.model,
            timeout=args.timeout,
            retries=args.retries,
            api_key=_api_key(args),
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
        return _FAILED
    except UnreachableError as error:
        _say(f"{parser.prog}: {error}\nIs the server running? --url or ${URL_VARIABLE} says where (now: {args.url}).")
        return _FAILED
    except (argparse.ArgumentTypeError, ClientError, OSError, ValueError) as error:
        _say(f"{parser.prog}: {error}")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it stores the function to call as ``command``."""
    parser = argparse.ArgumentParser(prog=_DISTRIBUTION, description="Generate images with a Triton Diffusers server.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(_DISTRIBUTION)}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    common = _common_parser()

    generate = commands.add_parser("generate", parents=[common], help="generate images", description="Generate images.")
    generate.set_defaults(command=_generate)
    add_generate_arguments(generate)

    for name, command, text in (
        ("progress", _progress, "show the progress of a job"),
        ("cancel", _cancel, "cancel a job"),
    ):
        subparser = commands.add_parser(name, parents=[common], help=text, description=f"{text.capitalize()}.")
        subparser.set_defaults(command=command)
        subparser.add_argument("task_id", metavar="TASK_ID", help="the id that `generate` or `jobs` shows")

    jobs = commands.add_parser(
        "jobs", parents=[common], help="list the jobs of the server", description="List jobs, newest first."
    )
    jobs.set_defaults(command=_jobs)
    return parser


def _common_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"http://HOST:PORT, https://…, grpc://… or grpcs://… (default: ${URL_VARIABLE}, else {DEFAULT_URL})",
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


def _api_key(args: argparse.Namespace) -> str | None:
    """Return the key that was given, or that of the environment unless a header stands in for it."""
    given: str | None = args.api_key
    if given or any(name.lower() == "authorization" for name, _ in args.headers):
        return given
    return os.environ.get(API_KEY_VARIABLE)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("it must be like 'X-Api-Key: …'")  # the value may be a secret
    return name.strip(), value.strip()


def _generate(client: Client, args: argparse.Namespace) -> int:
    options = options_of(args)
    if args.output is None:
        output_path(os.curdir)
    with Interruption() as interruption:
        job = client.submit(args.prompt, model=model_of(args), **options)
        began = time.monotonic()
        _watch(job, interruption)
        if not job.done():
            _cancel_interrupted(job)
            return _SIGNALLED + interruption.number
    generation = job.result()
    seconds = time.monotonic() - began
    try:
        paths = _save(generation.images, paths_for(generation, args.output))
        control_paths = _save(generation.control_images, control_paths_for(generation, args.output))
    except OSError:
        for url in generation.image_url:
            _say(f"task {generation.task_id}: the server has stored {url}")
        raise
    for warning in generation.warnings:
        _say(f"warning: {warning}")
    if any(generation.is_nsfw):
        _say("warning: the safety checker flagged an image (flagged images are black, unless safety_action is flag)")
    if args.json:
        _print_json(_generation_fields(generation, paths, control_paths))
    else:
        count = "1 image" if len(paths) == 1 else f"{len(paths)} images"
        _say(f"{count} in {seconds:.1f} s: task {generation.task_id}, seed {generation.seed}")
        for path in (*paths, *control_paths):
            print(path)
    return 0


def _save(images: Sequence[EncodedImage], paths: Sequence[Path]) -> list[Path]:
    return [image.save(path) for image, path in zip(images, paths, strict=True)]


def _watch(job: Job, interruption: Interruption) -> None:
    """Show the job's progress until it is done, or Ctrl-C."""
    with ProgressBar() as bar:
        while not interruption.requested and not job.wait(_POLL_SECONDS):
            try:
                bar.show(job.progress())
            except ClientError:
                # The bar is a convenience; only the job itself decides about success.
                bar.show(None)


def _cancel_interrupted(job: Job) -> None:
    try:
        known = job.cancel()
    except ClientError as error:
        _say(f"interrupted; could not cancel job {job.task_id} on the server: {error}")
    else:
        _say(f"interrupted; cancelled job {job.task_id}" + ("" if known else " before it reached the server"))


def _progress(client: Client, args: argparse.Namespace) -> int:
    return _print_jobs([client.progress(args.task_id)], args)


def _cancel(client: Client, args: argparse.Namespace) -> int:
    progress = client.cancel(args.task_id)
    if args.json:
        _print_json(_progress_fields(progress))
    elif progress.state.ended:
        print(f"{args.task_id} had ended: {progress.state}")
    else:
        print(f"{args.task_id} is being cancelled")
    return 0


def _jobs(client: Client, args: argparse.Namespace) -> int:
    return _print_jobs(client.jobs(), args)


_COLUMNS: dict[str, Callable[[Progress], str]] = {
    "TASK": lambda job: job.task_id,
    "MODEL": lambda job: job.model,
    "STATE": lambda job: job.state.value,
    "STEPS": lambda job: f"{job.step}/{job.steps or '?'}",
    "IMAGES": lambda job: f"{job.images_done}/{job.image_num}",
    "SECONDS": lambda job: f"{job.elapsed_seconds:.1f}",
    "ERROR": lambda job: job.error_msg,
}


def _print_jobs(jobs: Sequence[Progress], args: argparse.Namespace) -> int:
    if args.json:
        fields = [_progress_fields(job) for job in jobs]
        _print_json(fields if args.command is _jobs else fields[0])
        return 0
    rows = [list(_COLUMNS), *([cell(job) for cell in _COLUMNS.values()] for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _generation_fields(generation: Generation, paths: Iterable[Path], control_paths: Iterable[Path]) -> dict[str, Any]:
    fields = {field.name: getattr(generation, field.name) for field in dataclasses.fields(generation)}
    # Text, as on the wire: many readers of JSON cannot hold a whole number of 64 bits.
    files = {"images": [str(path) for path in paths], "control_images": [str(path) for path in control_paths]}
    return fields | files | {"seed": str(generation.seed)}


def _progress_fields(progress: Progress) -> dict[str, Any]:
    fields = dataclasses.asdict(progress)
    del fields["preview"]
    return fields


def _print_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2))


def _say(message: str) -> None:
    print(message, file=sys.stderr)
