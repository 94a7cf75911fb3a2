"""Latency and throughput under a mixed load, against a plain pipeline in a Python model; both measured in one run.

``python -m benchmarks.serving``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figures import latencies, spread, throughput
from benchmarks.load import Caller, Outcome, closed_loop, open_loop
from benchmarks.plots import plot_serving
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, MODEL_REPOSITORY, PEER_REPOSITORY, end_on_sigterm, servers
from benchmarks.systems import DiffusersPipeline, System, TritonDiffusers
from benchmarks.workload import REQUESTS_PER_LONG, Asks, Kind, mixed, native_side, poisson_arrivals

OURS, PEER = TritonDiffusers.label, DiffusersPipeline.label
# Between two runs, so that what one leaves running is over.
_PAUSE = 1.0
# A saturated run that takes so many times as long as was planned is cut off.
_PATIENCE = 3.0


@dataclass(frozen=True)
class Plan:
    """Options of the command line. Times are in seconds, ``rate`` in requests per second."""

    model_dir: Path
    rounds: int
    seconds: float
    saturated_seconds: float
    concurrency: int
    load: float
    rate: float | None
    overtakes: int
    seed: int


class Bench:
    """One run of the benchmark on two running servers."""

    def __init__(self, plan: Plan, callers: Mapping[str, Caller], say: Progress) -> None:
        self._plan = plan
        self._callers = callers
        self._say = say
        self._side = native_side(plan.model_dir)
        self._asks = Asks(self._side, plan.seed)

    def run(self) -> dict[str, Any]:
        """Measure everything; returns the figures."""
        alike = self._same_picture()
        idle = {label: self._idle(label) for label in self._callers}
        saturated = self._saturated(idle)
        capacity = saturated[PEER]["requests_per_second"]
        rate = self._plan.rate or self._plan.load * capacity
        self._say(f"arrival rate {rate:.3f}/s, {rate / capacity:.0%} of what the peer can do")
        overtakes = {label: self._overtakes(label) for label in self._callers}
        poisson = self._poisson(rate)
        systems = {
            label: {
                "idle_seconds": idle[label],
                "saturated": saturated[label],
                "overtake": overtakes[label],
                "poisson": poisson[label],
            }
            for label in self._callers
        }
        return {
            "workload": {
                "side_pixels": self._side,
                "kinds": {kind.value: {"steps": kind.steps, "images": kind.images} for kind in Kind},
                "long_share": 1 / REQUESTS_PER_LONG,
                "requests_per_second": rate,
                "share_of_peer_capacity": rate / capacity,
                "rounds": self._plan.rounds,
                "seconds_per_round": self._plan.seconds,
                "saturated_concurrency": self._plan.concurrency,
                "seed": self._plan.seed,
            },
            "same_picture_mean_difference_levels": alike,
            "systems": systems,
            "ratios": ratios(systems),
        }

    def _same_picture(self) -> float:
        """Warm both up; the mean difference, in levels of 256, of the pictures that they make of one request."""
        self._say("warming up; comparing the two systems' pictures")
        ask = self._asks.make(Kind.SHORT)
        first, second = (
            np.asarray(Image.open(io.BytesIO(caller.call(ask)[0])), np.float32) for caller in self._callers.values()
        )
        for caller in self._callers.values():
            caller.call(self._asks.make_own(2, Kind.LONG.images))
        difference = float(np.abs(first - second).mean())
        if difference > 1.0:
            self._say(f"warning: the systems' pictures differ by {difference:.1f} levels; is the comparison fair?")
        return difference

    def _idle(self, label: str) -> dict[str, float]:
        """Latency of each kind on an idle server: the shortest of two, in seconds."""
        caller = self._callers[label]
        seconds = {kind.value: min(caller.seconds(self._asks.make(kind)) for _ in range(2)) for kind in Kind}
        self._say(f"{label}, idle: " + ", ".join(f"{kind} {value:.2f} s" for kind, value in seconds.items()))
        return seconds

    def _saturated(self, idle: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
        """Throughput with a number of requests always in flight, in two rounds A B B A of the same requests."""
        of_peer = idle[PEER]
        mean = (of_peer["long"] + (REQUESTS_PER_LONG - 1) * of_peer["short"]) / REQUESTS_PER_LONG
        blocks = max(1, round(self._plan.saturated_seconds / 2 / mean / REQUESTS_PER_LONG))
        rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in self._callers}
        for number, order in enumerate((list(self._callers), list(reversed(list(self._callers))))):
            kinds = mixed(blocks * REQUESTS_PER_LONG, self._plan.seed + 100 + number)
            asks = [self._asks.make(kind) for kind in kinds]
            for label in order:
                time.sleep(_PAUSE)
                self._say(f"{label}, saturated round {number + 1}: {len(asks)} requests")
                limit = _PATIENCE * self._plan.saturated_seconds / 2
                outcomes = closed_loop(self._callers[label], asks, self._plan.concurrency, limit, self._say)
                self._report_failures(outcomes)
                rounds[label].append(throughput(outcomes))
                self._say(f"{label}: {rounds[label][-1]['image_steps_per_second']:.1f} image steps per second")
        return {label: _together(parts) for label, parts in rounds.items()}

    def _overtakes(self, label: str) -> dict[str, Any]:
        """Return the latency of a short request that comes one second after a long one, against an idle server's."""
        caller = self._callers[label]
        idle, behind = [], []
        for number in range(self._plan.overtakes):
            idle.append(caller.seconds(self._asks.make(Kind.SHORT)))
            with ThreadPoolExecutor(1) as pool:
                long = pool.submit(caller.call, self._asks.make(Kind.LONG))
                time.sleep(1.0)
                if long.done():
                    self._say("warning: the long request was over before the short one was sent")
                behind.append(caller.seconds(self._asks.make(Kind.SHORT)))
                long.result()
            self._say(f"{label}, overtaking {number + 1}: idle {idle[-1]:.2f} s, behind a long one {behind[-1]:.2f} s")
        return {
            "idle": spread(idle),
            "behind_long": spread(behind),
            "ratio": statistics.median(behind) / statistics.median(idle) if idle else float("nan"),
        }

    def _poisson(self, rate: float) -> dict[str, dict[str, Any]]:
        """Latencies under the mix; rounds alternate between the systems, each round with the same arrivals for both."""
        outcomes: dict[str, list[Outcome]] = {label: [] for label in self._callers}
        rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in self._callers}
        for number in range(self._plan.rounds):
            count = max(REQUESTS_PER_LONG, round(rate * self._plan.seconds))
            arrivals = poisson_arrivals(count, self._plan.seconds, self._plan.seed + number)
            asks = [self._asks.make(kind) for kind in mixed(count, self._plan.seed + number)]
            order = list(self._callers) if number % 2 == 0 else list(reversed(list(self._callers)))
            for label in order:
                time.sleep(_PAUSE)
                self._say(f"{label}, round {number + 1} of {self._plan.rounds}: {count} requests")
                made = open_loop(self._callers[label], asks, arrivals, self._say)
                self._report_failures(made)
                outcomes[label] += made
                short = latencies(_of_kind(made, Kind.SHORT))
                rounds[label].append({"short_p50": short["p50"], "short_p95": short["p95"]})
                self._say(f"{label}: short p50 {short['p50']:.2f} s, p95 {short['p95']:.2f} s")
        return {
            label: {
                **{kind.value: latencies(_of_kind(outcomes[label], kind)) for kind in Kind},
                "rounds": rounds[label],
                "latest_send_seconds": max(outcome.sent - outcome.due for outcome in outcomes[label]),
            }
            for label in self._callers
        }

    def _report_failures(self, outcomes: Sequence[Outcome]) -> None:
        failed = [outcome.error for outcome in outcomes if outcome.error]
        if failed:
            self._say(f"warning: {len(failed)} requests failed, the first with: {failed[0]}")


def ratios(systems: Mapping[str, Any]) -> dict[str, float]:
    """Ours against the peer; above 1 ours is better."""
    ours, peer = systems[OURS], systems[PEER]
    compared = {
        f"{kind}_{name}": peer["poisson"][kind][name] / ours["poisson"][kind][name]
        for kind in ("short", "long")
        for name in ("p50", "p95")
    }
    rates = [system["saturated"]["image_steps_per_second"] for system in (ours, peer)]
    return {**compared, "throughput": rates[0] / rates[1]}


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    systems = figures["systems"]
    ours, peer, better = systems[OURS], systems[PEER], figures["ratios"]
    rows = [
        [
            f"{kind} requests, {name} (s)",
            *(f"{system['poisson'][kind][name]:.2f}" for system in (ours, peer)),
            f"{better[f'{kind}_{name}']:.2f}×",
        ]
        for kind in ("short", "long")
        for name in ("p50", "p95")
    ]
    rows.append(
        [
            "throughput, saturated (image steps/s)",
            *(f"{system['saturated']['image_steps_per_second']:.1f}" for system in (ours, peer)),
            f"{better['throughput']:.2f}×",
        ]
    )
    rows.append(
        [
            "short request behind a long one, ÷ idle",
            *(f"{system['overtake']['ratio']:.1f}" for system in (ours, peer)),
            "",
        ]
    )
    return markdown_table(["", OURS, PEER, "better by"], rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures in a sentence or two."""
    load, poisson = figures["workload"], figures["systems"][OURS]["poisson"]
    return (
        f"{poisson['short']['requests']} short and {poisson['long']['requests']} long requests for each system, "
        f"{load['requests_per_second']:.2f} a second ({load['share_of_peer_capacity']:.0%} of what the peer can do), "
        f"{load['side_pixels']}×{load['side_pixels']} pixels. {machine_line(figures['machine'])}."
    )


def main() -> None:
    """Return the command line."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    plan = Plan(**{name: getattr(options, name) for name in Plan.__dataclass_fields__})
    systems: tuple[System, System] = (TritonDiffusers(), DiffusersPipeline())
    say("starting both servers")
    with ExitStack() as stack:
        endpoints = stack.enter_context(servers({"ours": MODEL_REPOSITORY, "peer": PEER_REPOSITORY}, plan.model_dir))
        callers = {}
        for system, endpoint in zip(systems, endpoints.values(), strict=True):
            callers[system.label] = Caller(system, endpoint.grpc)
            stack.callback(callers[system.label].close)
        described["tritonserver"] = callers[OURS].server_version
        figures = {"machine": described, **Bench(plan, callers, say).run()}
    write_json(options.out / "serving.json", figures)
    plot_serving(options.out / "serving.png", figures["systems"])
    say("done; figures and plot are in the results folder")
    print(table(figures), note(figures), sep="\n\n")


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the rounds of a saturated run."""
    total = {name: sum(part[name] for part in parts) for name in ("requests", "failed", "seconds", "image_steps")}
    return {
        **total,
        "image_steps_per_second": total["image_steps"] / total["seconds"],
        "requests_per_second": total["requests"] / total["seconds"],
        "rounds": parts,
    }


def _of_kind(outcomes: Sequence[Outcome], kind: Kind) -> Sequence[Outcome]:
    return [outcome for outcome in outcomes if outcome.ask.steps == kind.steps]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--rounds", type=int, default=2, help="rounds of the Poisson mix for each system (default: %(default)s)")
    add("--seconds", type=float, default=60.0, help="seconds of arrivals in a round (default: %(default)g)")
    add("--saturated-seconds", type=float, default=40.0, help="seconds, roughly, at saturation (default: %(default)g)")
    add("--concurrency", type=int, default=8, help="requests in flight at saturation (default: %(default)s)")
    add("--load", type=float, default=0.7, help="arrival rate as a share of the peer's capacity (default: %(default)g)")
    add("--rate", type=float, help="arrival rate in requests per second, instead of --load")
    add("--overtakes", type=int, default=5, help="short requests sent behind a long one (default: %(default)s)")
    add("--seed", type=int, default=1, help="of arrivals, order and pictures (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
