"""Deaths of the processes of a service under load: jobs lost or done twice, and the time until it serves again.

``python -m benchmarks.service_deaths``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, end_on_sigterm
from benchmarks.service_calls import DIALECTS, GatewayClient, RequestFailed, Wish
from benchmarks.service_history import Answer, records, violations
from benchmarks.service_stack import KINDS, PROCESSES, Stack, service
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

OWNERS = ("ann", "bob", "cid")
PROBER = "dan"  # without other jobs, so that it does not wait for theirs
# With one image in a call, equal requests have equal images: in other batches, sums of floats differ a little.
SETTINGS = {"TRITON_DIFFUSERS_MAX_BATCH": "1"}
_PAUSE_SECONDS = (0.1, 2.0)
_MAX_CLIENTS = 64


class Load:
    """Requests of several owners in all dialects, sent by threads of their own."""

    def __init__(self, client: GatewayClient, seed: int, steps: int, side: int) -> None:
        self._client = client
        self._numbers = itertools.count(seed * 1_000_000)
        self._steps, self._side = steps, side
        self._pool = ThreadPoolExecutor(_MAX_CLIENTS)
        self._sent: list[Future[Answer]] = []

    def send(self, count: int) -> None:
        """Send requests, and return at once."""
        for _ in range(count):
            self._sent.append(self._pool.submit(self._answer, self._wish()))

    def probe(self) -> None:
        """Return as soon as a new request has its image. Raises ``RequestFailed``."""
        answer = self._answer(replace(self._wish(), owner=PROBER, dialect="native"))
        done: Future[Answer] = Future()
        done.set_result(answer)
        self._sent.append(done)
        if answer.error:
            raise RequestFailed(answer.error)

    def answers(self) -> Sequence[Answer]:
        """Wait for all answers."""
        return [each.result() for each in self._sent]

    def close(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown()

    def _wish(self) -> Wish:
        number = next(self._numbers)
        return Wish(
            owner=OWNERS[number % len(OWNERS)],
            dialect=DIALECTS[number // len(OWNERS) % len(DIALECTS)],
            prompt=f"a red apple, number {number}",
            seed=number,
            steps=self._steps,
            side=self._side,
        )

    def _answer(self, wish: Wish) -> Answer:
        try:
            return Answer(prompt=wish.prompt, image=self._client.image(wish))
        except (RequestFailed, LookupError, ValueError) as error:
            return Answer(prompt=wish.prompt, error=f"{type(error).__name__}: {error}")


def schedule(kinds: Sequence[str], kills: int, seed: int) -> Sequence[tuple[str, float]]:
    """Return the kinds in the order of their deaths, each with a pause in seconds before it."""
    chance = random.Random(seed)
    order = [kind for kind in kinds for _ in range(kills)]
    chance.shuffle(order)
    return [(kind, chance.uniform(*_PAUSE_SECONDS)) for kind in order]


def run(
    stack: Stack, planned: Sequence[tuple[str, float]], jobs: int, load: Load, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Kill processes as planned while ``jobs`` requests are sent; return the seconds until an image, by kind."""
    seconds: dict[str, list[float]] = defaultdict(list)
    load.probe()
    for number, (kind, pause) in enumerate(planned):
        load.send(jobs * (number + 1) // len(planned) - jobs * number // len(planned))
        time.sleep(pause)
        say(f"{number + 1} of {len(planned)}: killing the {kind}")
        struck = stack.kill(kind)
        load.probe()
        seconds[kind].append(time.monotonic() - struck)
        say(f"{number + 1} of {len(planned)}: {kind}: an image after {seconds[kind][-1]:.1f} s")
    return seconds


def check(stack: Stack, answers: Sequence[Answer], say: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures of the history, and say what is wrong with it."""
    for answer in answers:
        if answer.error:
            say(f"no image: {answer.error}")
    store = open_store(stack.database, JobTableSettings())
    try:
        found = records(store, stack.images())
    finally:
        store.close()
    broken = violations(answers, found)
    for name, prompts in broken.items():
        if prompts:
            say(f"{name}: {', '.join(prompts[:5])}")
    attempts = [record.job.attempts for record in found]
    return {
        "requests": len(answers),
        "jobs": len(found),
        "jobs_run_again": sum(each > 1 for each in attempts),
        "max_attempts": max(attempts, default=0),
        "violations": {name: len(prompts) for name, prompts in broken.items()},
    }


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = [
        [kind, str(each["kills"]), f"{each['median']:.1f}", f"{each['max']:.1f}"]
        for kind, each in figures["kinds"].items()
    ]
    return markdown_table(["killed", "times", "an image again after, median (s)", "maximum (s)"], rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the history and its circumstances in some sentences."""
    history, load = figures["history"], figures["workload"]
    broken = ", ".join(f"{count} {name}" for name, count in history["violations"].items())
    return (
        f"{history['requests']} requests on {load['database']}, {history['jobs_run_again']} of their jobs ran more than"
        f" once: {broken}. Images of {load['side_pixels']}×{load['side_pixels']} pixels and {load['steps']} steps."
        f" {machine_line(figures['machine'])}."
    )


def main() -> None:
    """Run the command line."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    kinds = KINDS if options.database == "postgresql" else tuple(PROCESSES)
    say("starting the service")
    postgresql = options.database == "postgresql"
    with service(
        options.model_dir, (*OWNERS, PROBER), postgresql=postgresql, seconds=options.seconds, settings=SETTINGS
    ) as stack:
        load = Load(stack.client, options.seed, options.steps, options.side)
        try:
            seconds = run(stack, schedule(kinds, options.kills, options.seed), options.jobs, load, say)
            say("waiting for the last answers")
            answers = load.answers()
        finally:
            load.close()
        history = check(stack, answers, say)
    figures = {
        "machine": described,
        "workload": {
            "database": options.database,
            "side_pixels": options.side,
            "steps": options.steps,
            "seed": options.seed,
        },
        "kinds": {
            kind: {
                "kills": len(values),
                "median": percentile(values, 50),
                "max": max(values),
                "seconds": [round(value, 2) for value in values],
            }
            for kind, values in sorted(seconds.items())
        },
        "history": history,
    }
    write_json(options.out / f"service_deaths_{options.database}.json", figures)
    say("done; figures are in the results folder")
    print(table(figures), note(figures), sep="\n\n")
    if any(history["violations"].values()):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_deaths", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--database", choices=("postgresql", "sqlite"), default="postgresql", help="default: %(default)s")
    add("--jobs", type=int, default=500, help="requests of all owners together (default: %(default)s)")
    add("--kills", type=int, default=20, help="deaths of each kind (default: %(default)s)")
    add("--steps", type=int, default=4, help="steps of an image (default: %(default)s)")
    add("--side", type=int, default=64, help="width and height in pixels (default: %(default)s)")
    add("--seconds", type=float, default=300.0, help="patience of clients (default: %(default)g)")
    add("--seed", type=int, default=1, help="of requests, kinds and moments (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
