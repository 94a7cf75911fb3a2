"""Speed of the job table: ``python -m benchmarks.job_table [--database URL]``; by default on a new SQLite file.

With a queue of many jobs of many owners it measures single submissions, claims each followed by a renewal and an end,
and the questions that a user's page asks. CPU time is that of this process (for PostgreSQL: of its client side).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import Bill, NewJob, Progress, Report
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

_MODEL = "sd_base"
_REQUEST = {"prompt": "a lighthouse on a cliff, " * 20, "seed": 1, "steps": 20, "width": 512, "height": 512}
_BILL = Bill(megapixel_steps=5.2, image_steps=20, engine_seconds=1.0)
_BATCH = 100


def _measure(count: int, work: Callable[[int], object]) -> dict[str, float]:
    """Return the rate and the milliseconds of ``count`` calls."""
    milliseconds = []
    cpu, begin = time.process_time(), time.perf_counter()
    for number in range(count):
        before = time.perf_counter()
        work(number)
        milliseconds.append((time.perf_counter() - before) * 1000.0)
    seconds = time.perf_counter() - begin
    cuts = quantiles(milliseconds, n=100)
    return {
        "per_second": round(count / seconds, 1),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "cpu_ms": round((time.process_time() - cpu) * 1000.0 / count, 2),
    }


def _new(number: int) -> NewJob:
    return NewJob(model=_MODEL, request=_REQUEST, work=1.0 + number % 7)


def _run(store: JobStore, jobs: int, owners: int, count: int) -> Iterator[tuple[str, dict[str, float]]]:
    ids = []
    for batch in range(jobs // _BATCH):
        submitted = store.submit(f"owner{batch % owners}", [_new(number) for number in range(_BATCH)])
        ids.append(submitted[-1].job.id)

    def claim(_: int) -> None:
        (claimed,) = store.claim("runner", "default", [_MODEL], 1)
        store.renew([Report(lease=claimed.lease, progress=Progress(step=1, steps=20))])
        store.finish(claimed.lease, {"images": ["a.png"]}, _BILL)

    yield "submit", _measure(count, lambda number: store.submit(f"owner{number % owners}", [_new(number)]))
    yield "claim, renew, finish", _measure(count, claim)
    yield "claim of 8", _measure(count // 8, lambda _: store.claim("runner", "default", [_MODEL], 8))
    yield "get", _measure(count, lambda number: store.get(None, ids[number % len(ids)]))
    yield "page of 50", _measure(count, lambda number: store.jobs(f"owner{number % owners}"))
    yield "position", _measure(count, lambda number: store.position(None, ids[number % len(ids)]))
    yield "load", _measure(count, lambda _: store.load())


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="URL of an empty database")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in the queue (default: %(default)s)")
    parser.add_argument("--owners", type=int, default=100, help="their owners (default: %(default)s)")
    parser.add_argument("--count", type=int, default=400, help="calls of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = open_store(arguments.database or f"sqlite:///{folder}/jobs.sqlite", JobTableSettings())
        for name, figures in _run(store, arguments.jobs, arguments.owners, arguments.count):
            print(json.dumps({"what": name, **figures}), flush=True)
        store.close()


if __name__ == "__main__":
    main()
