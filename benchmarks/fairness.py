"""Fairness between owners of a service: a flood of one beside the short job of another, and the shares of busy ones.

``python -m benchmarks.fairness``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, end_on_sigterm
from benchmarks.service_calls import GatewayClient, Wish
from benchmarks.service_stack import Stack, service
from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

FLOODER, OTHER = "ann", "bob"
BUSY = ("cid", "dan", "eve", "fay", "gus")
_SHORT_STEPS = 4
_PAUSE_SECONDS = 0.2
_LEFT = 8  # jobs
_PATIENCE_SECONDS = 900.0


class Requests:
    """Requests of owners, each with a prompt of its own."""

    def __init__(self, client: GatewayClient, side: int, seed: int) -> None:
        self._client = client
        self._side = side
        self._numbers = itertools.count(seed * 1_000_000)

    def flood(self, owner: str, count: int, steps: int) -> None:
        """Queue jobs, and return at once."""
        for _ in range(count):
            self._client.submit(self._wish(owner, steps))

    def short_seconds(self, owner: str) -> float:
        """Return the time of a short job, from its request to its image."""
        began = time.perf_counter()
        self._client.image(self._wish(owner, _SHORT_STEPS))
        return time.perf_counter() - began

    def _wish(self, owner: str, steps: int) -> Wish:
        number = next(self._numbers)
        prompt = f"a red apple, number {number}"
        return Wish(owner=owner, dialect="native", prompt=prompt, seed=number, steps=steps, side=self._side)


def beside_flood(stack: Stack, requests: Requests, jobs: int, steps: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a short job, alone and while another owner has ``jobs`` long ones in the queue."""
    requests.short_seconds(OTHER)  # warm up
    idle = [requests.short_seconds(OTHER) for _ in range(rounds)]
    requests.flood(FLOODER, jobs, steps)
    beside = []
    for _ in range(rounds):
        time.sleep(_PAUSE_SECONDS)
        beside.append(requests.short_seconds(OTHER))
    left = _cancel_all(stack)
    return {
        "idle_seconds": statistics.median(idle),
        "beside_seconds": statistics.median(beside),
        "factor": statistics.median(beside) / statistics.median(idle),
        "still_queued": left,
    }


def shares(stack: Stack, requests: Requests, jobs: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return how unequally owners were served who all have jobs waiting, each with images of another cost.

    ``unfairness`` is the difference between the most and the least work that was started for one, by their mean.
    """
    for number, owner in enumerate(BUSY):
        requests.flood(owner, jobs, steps * (1 + number % 2))
    store = open_store(stack.database, JobTableSettings())
    try:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            queued, started = _work(store)
            # Nobody's queue must run empty before it is looked at.
            if min(queued.values()) <= _LEFT or time.monotonic() > give_up:
                break
            time.sleep(_PAUSE_SECONDS)
    finally:
        store.close()
    say(f"work started: {dict(started)}")
    _cancel_all(stack)
    work = list(started.values())
    return {"started_work": dict(started), "unfairness": (max(work) - min(work)) / statistics.fmean(work)}


def _work(store: JobStore) -> tuple[Mapping[str, int], Mapping[str, float]]:
    """Return the queued jobs and the started work of each busy owner."""
    queued, started = Counter[str](), dict.fromkeys(BUSY, 0.0)
    for job in store.jobs(None, limit=1000).jobs:
        if job.label in BUSY:
            queued[job.label] += job.started is None and not job.state.has_ended
            started[job.label] += job.work if job.started is not None else 0.0
    return queued, started


def _cancel_all(stack: Stack) -> int:
    """Cancel all jobs in flight, and return after their ends how many were queued."""
    store = open_store(stack.database, JobTableSettings())
    try:
        left = [job for job in store.jobs(None, limit=1000).jobs if not job.state.has_ended]
        for job in left:
            store.cancel(None, job.id)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while store.load() and time.monotonic() < give_up:
            time.sleep(_PAUSE_SECONDS)
        return sum(job.started is None for job in left)
    finally:
        store.close()


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    flood, busy = figures["flood"], figures["shares"]
    rows = [
        ["short job, alone (s)", f"{flood['idle_seconds']:.2f}"],
        ["short job, beside the flood (s)", f"{flood['beside_seconds']:.2f}"],
        ["÷ alone", f"{flood['factor']:.1f}"],
        [f"unfairness between {len(BUSY)} busy owners", f"{busy['unfairness']:.1%}"],
    ]
    return markdown_table(["", ""], rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures in a sentence or two."""
    load = figures["workload"]
    return (
        f"A flood of {load['jobs']} jobs of {load['steps']} steps, {figures['flood']['still_queued']} of which still"
        f" waited at the end; short jobs of {_SHORT_STEPS} steps; {load['side_pixels']}×{load['side_pixels']} pixels."
        f" {machine_line(figures['machine'])}."
    )


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    say("starting the service")
    owners: Sequence[str] = (FLOODER, OTHER, *BUSY)
    with service(options.model_dir, owners, postgresql=False, seconds=_PATIENCE_SECONDS, watch=False) as stack:
        requests = Requests(stack.client, options.side, options.seed)
        say("a short job beside a flood")
        flood = beside_flood(stack, requests, options.jobs, options.steps, options.rounds)
        say("busy owners")
        busy = shares(stack, requests, options.busy_jobs, options.busy_steps, say)
    figures = {
        "machine": described,
        "workload": {"jobs": options.jobs, "steps": options.steps, "side_pixels": options.side, "seed": options.seed},
        "flood": flood,
        "shares": busy,
    }
    write_json(options.out / "fairness.json", figures)
    say("done; figures are in the results folder")
    print(table(figures), note(figures), sep="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--jobs", type=int, default=200, help="jobs of the flood (default: %(default)s)")
    add("--steps", type=int, default=50, help="steps of a job of the flood (default: %(default)s)")
    add("--rounds", type=int, default=7, help="short jobs, alone and beside the flood (default: %(default)s)")
    add("--busy-jobs", type=int, default=60, help="jobs of each busy owner (default: %(default)s)")
    add("--busy-steps", type=int, default=2, help="steps of their jobs, or twice as many (default: %(default)s)")
    add("--side", type=int, default=64, help="width and height in pixels (default: %(default)s)")
    add("--seed", type=int, default=1, help="of prompts and images (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
