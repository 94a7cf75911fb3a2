"""Speed of the job table: ``python -m benchmarks.job_table [--database URL]``; by default on new SQLite files.

The queue has one job, then ten times as many, and so on: its length should make no difference. Each job that is
submitted is followed by a claim, a renewal and an end, so that the length stays; then come the questions that a user's
page asks. CPU time is that of this process (for PostgreSQL: of its client side).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import Bill, NewJob, Progress, Report
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

T = TypeVar("T")

_MODEL = "sd_base"
_REQUEST = {"prompt": "a lighthouse on a cliff, " * 20, "seed": 1, "steps": 20, "width": 512, "height": 512}
_BILL = Bill(megapixel_steps=5.2, image_steps=20, engine_seconds=1.0)
_BATCH = 100


class Timer:
    """The times of calls of one kind."""

    def __init__(self) -> None:
        self._milliseconds: list[float] = []
        self._cpu = 0.0

    def __call__(self, work: Callable[[], T]) -> T:
        """Return the result of a call, whose time is taken."""
        cpu, begin = time.process_time(), time.perf_counter()
        result = work()
        self._milliseconds.append((time.perf_counter() - begin) * 1000.0)
        self._cpu += time.process_time() - cpu
        return result

    def figures(self) -> dict[str, float]:
        """Return the rate and the milliseconds of the calls."""
        cuts = quantiles(self._milliseconds, n=100)
        count = len(self._milliseconds)
        return {
            "per_second": round(count * 1000.0 / sum(self._milliseconds), 1),
            "p50_ms": round(cuts[49], 2),
            "p99_ms": round(cuts[98], 2),
            "cpu_ms": round(self._cpu * 1000.0 / count, 2),
        }


class Queue:
    """A table whose queue has a known length."""

    def __init__(self, store: JobStore, owners: int) -> None:
        self._store = store
        self._owners = owners
        self._ids: list[str] = []

    def grow(self, length: int) -> None:
        """Submit jobs until so many have been."""
        while (missing := length - len(self._ids)) > 0:
            jobs = [_new(number) for number in range(min(missing, _BATCH))]
            owner = f"owner{len(self._ids) // _BATCH % self._owners}"
            self._ids += [each.job.id for each in self._store.submit(owner, jobs)]

    def measure(self, count: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the figures of each kind of call."""
        store, submit, run = self._store, Timer(), Timer()
        ids = list(self._ids)
        for number in range(count):
            submit(partial(store.submit, f"owner{number % self._owners}", [_new(number)]))
            run(self._run_one)
        yield "submit", submit.figures()
        yield "claim, renew, finish", run.figures()
        questions: dict[str, Callable[[int], object]] = {
            "get": lambda number: store.get(None, ids[number % len(ids)]),
            "page of 50": lambda number: store.jobs(f"owner{number % self._owners}"),
            "position": lambda number: store.position(None, ids[number % len(ids)]),
            "load": lambda _: store.load(),
        }
        for name, ask in questions.items():
            timer = Timer()
            for number in range(count):
                timer(partial(ask, number))
            yield name, timer.figures()

    def _run_one(self) -> None:
        (claimed,) = self._store.claim("runner", "default", [_MODEL], 1)
        self._store.renew([Report(lease=claimed.lease, progress=Progress(step=1, steps=20))])
        self._store.finish(claimed.lease, {"images": ["a.png"]}, _BILL)


def _new(number: int) -> NewJob:
    return NewJob(model=_MODEL, request=_REQUEST, work=1.0 + number % 7)


def main() -> None:
    """Print the figures as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="URL of an empty database")
    parser.add_argument(
        "--queues",
        type=int,
        nargs="+",
        default=[1, 10, 100, 1000, 10_000],
        help="lengths, ascending (default: 1 to 10,000)",
    )
    parser.add_argument("--owners", type=int, default=100, help="their owners (default: %(default)s)")
    parser.add_argument("--count", type=int, default=400, help="calls of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = open_store(arguments.database or f"sqlite:///{folder}/jobs.sqlite", JobTableSettings())
        queue = Queue(store, arguments.owners)
        for length in arguments.queues:
            queue.grow(length)
            for name, figures in queue.measure(arguments.count):
                print(json.dumps({"queue": length, "what": name, **figures}), flush=True)
        store.close()


if __name__ == "__main__":
    main()
