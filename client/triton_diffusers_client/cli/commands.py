"""The commands."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path

from triton_diffusers_client.address import Interface
from triton_diffusers_client.attempts import checked_timeout
from triton_diffusers_client.cli.generate_arguments import model_of, options_of
from triton_diffusers_client.cli.interruption import Interruption
from triton_diffusers_client.cli.outputs import control_paths_for, output_path, paths_for
from triton_diffusers_client.cli.report import generation_fields, print_json, print_table, progress_fields, say
from triton_diffusers_client.client import Client
from triton_diffusers_client.display.terminal import ProgressBar
from triton_diffusers_client.errors import ClientError, NotSupportedError, RequestTimeoutError
from triton_diffusers_client.generation import Generation
from triton_diffusers_client.image import EncodedImage
from triton_diffusers_client.job import Job
from triton_diffusers_client.progress import Progress

_TICK_SECONDS = 0.125
_SIGNALLED = 128


def generate(client: Client, args: argparse.Namespace) -> int:
    """Generate images, and write them."""
    options = options_of(args)
    if args.no_wait and client.interface is Interface.TRITON:
        raise NotSupportedError("--no-wait: a Triton without a gateway gives images only to who waits for them")
    if args.output is None:
        output_path(os.curdir)
    with Interruption() as interruption:
        began = time.monotonic()
        job = client.submit(args.prompt, model=model_of(args), timeout=args.timeout, **options)
        if args.no_wait:
            print_json({"id": job.id, "task_id": job.task_id}) if args.json else print(job.id)
            return 0
        try:
            generation = _follow(job, interruption, args.timeout)
        except RequestTimeoutError:
            _give_up(job)
            raise
        if generation is None:
            _cancel_interrupted(job)
            return _SIGNALLED + interruption.number
    _write(generation, args, time.monotonic() - began)
    return 0


def watch(client: Client, args: argparse.Namespace) -> int:
    """Follow a job until it ends, and write its images."""
    job = client.job(args.name)
    if args.output is None:
        output_path(os.curdir)
    with Interruption() as interruption:
        began = time.monotonic()
        try:
            generation = _follow(job, interruption, args.timeout)
        except NotSupportedError:  # somebody else's job at a Triton
            return _print_progress(job.status(), args)
        if generation is None:
            say(f"interrupted; job {job.id} continues")
            return _SIGNALLED + interruption.number
    _write(generation, args, time.monotonic() - began)
    return 0


def progress(client: Client, args: argparse.Namespace) -> int:
    """Show a job's progress."""
    return _print_progress(client.progress(args.name), args)


def cancel(client: Client, args: argparse.Namespace) -> int:
    """Cancel a job."""
    found = client.cancel(args.name)
    if args.json:
        print_json(progress_fields(found))
    elif found.state.ended:
        print(f"{args.name} had ended: {found.state}")
    else:
        print(f"{args.name} is being cancelled")
    return 0


def delete(client: Client, args: argparse.Namespace) -> int:
    """Delete a job."""
    job = client.job(args.name)
    job.delete()
    print_json({"id": job.id, "task_id": job.task_id}) if args.json else print(f"{args.name} is deleted")
    return 0


def jobs(client: Client, args: argparse.Namespace) -> int:
    """List jobs."""
    found = client.jobs(states=args.states, task_id=args.task_id, limit=args.limit)
    print_json([progress_fields(job) for job in found]) if args.json else print_table(found)
    return 0


def _print_progress(found: Progress, args: argparse.Namespace) -> int:
    print_json(progress_fields(found)) if args.json else print_table([found])
    return 0


def _follow(job: Job, interruption: Interruption, timeout: float) -> Generation | None:
    """Show the job's progress until it ends, and return or raise as ``result`` does; None after a signal."""
    latest: list[Progress] = []
    outcome: Future[Generation] = Future()
    if interruption.requested:
        return None
    with ProgressBar() as bar:
        # A signal ends the waiting wherever this thread is, without raising in it.
        watched = latest if bar.visible else None
        threading.Thread(target=_work, args=(job, timeout, watched, outcome), daemon=True).start()
        while not outcome.done() and not interruption.requested:
            wait([outcome], _TICK_SECONDS)
            if latest:
                bar.update(latest[-1])
            else:
                bar.tick()
    return outcome.result() if outcome.done() else None


def _work(job: Job, timeout: float, latest: list[Progress] | None, outcome: Future[Generation]) -> None:
    seconds = checked_timeout(timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        if latest is not None:
            with suppress(ClientError):  # the bar is a convenience; only the job itself decides about success
                for now in job.progress():
                    latest[:] = [now]
        outcome.set_result(job.result(None if deadline is None else max(0.0, deadline - time.monotonic())))
    except BaseException as error:  # noqa: BLE001  # raised by the main thread
        outcome.set_exception(error)


def _write(generation: Generation, args: argparse.Namespace, seconds: float) -> None:
    try:
        paths = _save(generation.images, paths_for(generation, args.output))
        control_paths = _save(generation.control_images, control_paths_for(generation, args.output))
    except OSError:
        for url in generation.image_url:
            say(f"task {generation.task_id}: the server has stored {url}")
        raise
    for warning in generation.warnings:
        say(f"warning: {warning}")
    if any(generation.is_nsfw):
        say("warning: the safety checker flagged an image (flagged images are black, unless safety_action is flag)")
    if args.json:
        print_json(generation_fields(generation, paths, control_paths))
    else:
        count = "1 image" if len(paths) == 1 else f"{len(paths)} images"
        say(f"{count} in {seconds:.1f} s: task {generation.task_id}, seed {generation.seed}")
        for path in (*paths, *control_paths):
            print(path)


def _save(images: Sequence[EncodedImage], paths: Sequence[Path]) -> list[Path]:
    return [image.save(path) for image, path in zip(images, paths, strict=True)]


def _give_up(job: Job) -> None:
    with suppress(ClientError):
        job.cancel()


def _cancel_interrupted(job: Job) -> None:
    try:
        known = job.cancel()
    except ClientError as error:
        say(f"interrupted; could not cancel job {job.task_id} on the server: {error}")
    else:
        say(f"interrupted; cancelled job {job.task_id}" + ("" if known else " before it reached the server"))
