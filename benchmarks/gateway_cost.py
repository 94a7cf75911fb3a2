"""The gateway's cost: one image through gateway, job table and runner against the same image from Triton directly.

``python -m benchmarks.gateway_cost``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import spread
from benchmarks.load import Caller
from benchmarks.overhead import measure_ways
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, end_on_sigterm
from benchmarks.service_calls import GatewayClient, Wish
from benchmarks.service_stack import service
from benchmarks.systems import TritonDiffusers
from benchmarks.workload import Ask, Asks, native_side
from triton_diffusers.gateway.jobs.job import NewJob
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

TRITON, GATEWAY = "Triton, gRPC", "gateway"
_OWNER = "ann"
_OTHER_POOL = "paused"
_BATCH = 100
_PATIENCE_SECONDS = 300.0


class ThroughGateway:
    """Sends requests of the native dialect, and fetches their images."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    def call(self, ask: Ask) -> Sequence[bytes]:
        """Have an image made; return its hash, as bytes."""
        wish = Wish(
            owner=_OWNER,
            dialect="native",
            prompt=f"{ask.prompt}, number {ask.seed}",
            seed=ask.seed,
            steps=ask.steps,
            side=ask.side,
        )
        return [self._client.image(wish).encode()]


def fill(database: str, count: int) -> None:
    """Queue jobs in a pool without runners."""
    store = open_store(database, JobTableSettings())
    try:
        new = NewJob(model="sd_base", request={"fields": {"prompt": "a red apple"}}, work=1.0, pool=_OTHER_POOL)
        for begun in range(0, count, _BATCH):
            store.submit(f"owner{begun}", [new] * min(_BATCH, count - begun))
    finally:
        store.close()


def paired(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return both spreads, and what the gateway adds at the median of the pairs, as a share of Triton's median."""
    more = statistics.median(t - d for t, d in zip(seconds[GATEWAY], seconds[TRITON], strict=True))
    alone = statistics.median(seconds[TRITON])
    return {
        "rounds": len(seconds[TRITON]),
        "ways": {name: spread(values) for name, values in seconds.items()},
        "overhead_seconds": more,
        "overhead": more / alone,
    }


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = [
        [
            case,
            *(f"{found['ways'][name]['median']:.3f}" for name in (TRITON, GATEWAY)),
            f"{found['overhead_seconds'] * 1000:.0f}",
            f"{found['overhead']:+.1%}",
        ]
        for case, found in figures["cases"].items()
    ]
    return markdown_table(["queue", "Triton (s)", "gateway (s)", "more, paired (ms)", "share"], rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures in a sentence or two."""
    load = figures["workload"]
    return (
        f"One image of {load['side_pixels']}×{load['side_pixels']} pixels, {load['steps']} steps,"
        f" {load['rounds']} rounds in turns; the gateway's time includes fetching the image."
        f" {machine_line(figures['machine'])}."
    )


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    side = native_side(options.model_dir)
    asks = Asks(side, options.seed)
    cases = {}
    say("starting the service")
    with service(
        options.model_dir,
        (_OWNER,),
        postgresql=options.database == "postgresql",
        seconds=_PATIENCE_SECONDS,
        watch=False,
    ) as stack:
        triton = Caller(TritonDiffusers(), stack.triton.grpc)
        ways = {TRITON: triton.call, GATEWAY: ThroughGateway(stack.client).call}
        try:
            for count in (0, options.queued):
                fill(stack.database, count)
                say(f"{count} jobs in the queue")
                make = partial(asks.make_own, options.steps, 1)
                seconds = measure_ways(ways, make, options.rounds, options.seconds, say)
                cases[f"{count} jobs"] = paired(seconds)
        finally:
            triton.close()
    figures = {
        "machine": described,
        "workload": {
            "database": options.database,
            "side_pixels": side,
            "steps": options.steps,
            "rounds": options.rounds,
            "seed": options.seed,
        },
        "cases": cases,
    }
    write_json(options.out / "gateway_cost.json", figures)
    say("done; figures are in the results folder")
    print(table(figures), note(figures), sep="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_cost", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--database", choices=("postgresql", "sqlite"), default="sqlite", help="default: %(default)s")
    add("--rounds", type=int, default=40, help="images by each way, with each queue (default: %(default)s)")
    add("--seconds", type=float, default=150.0, help="begin no round of a queue later (default: %(default)g)")
    add("--steps", type=int, default=20, help="steps of an image (default: %(default)s)")
    add("--queued", type=int, default=500, help="jobs of the long queue (default: %(default)s)")
    add("--seed", type=int, default=1, help="of prompts and images (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
