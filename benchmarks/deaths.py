"""Measure deaths of the engine process: requests that are lost, and the time until the first answer.

``python -m benchmarks.deaths``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton
import tritonclient.http as triton_http

from benchmarks.figures import percentile
from benchmarks.load import REQUEST_SECONDS
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, MODEL_REPOSITORY, Endpoints, end_on_sigterm, servers
from benchmarks.systems import TritonDiffusers, pictures
from benchmarks.workload import GUIDANCE_SCALE, Ask, Asks, native_side

REQUESTS = 12
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
_TICK = 0.05  # seconds
_ENGINE = "triton_diffusers.engine_process"
# With one image in a UNet call, equal requests have equal images: in other batches, sums of floats differ a little.
_SETTINGS = {"TRITON_DIFFUSERS_MAX_BATCH": "1"}

Way = Callable[[Endpoints, Ask], Sequence[bytes]]


@dataclass(frozen=True)
class Answer:
    """How a request ended. ``images`` is a hash; ``at`` is a time of ``time.monotonic``."""

    images: str
    error: str
    at: float


def over_http(endpoints: Endpoints, ask: Ask) -> Sequence[bytes]:
    """Send tensors over HTTP."""
    with contextlib.closing(
        triton_http.InferenceServerClient(endpoints.http, network_timeout=REQUEST_SECONDS)
    ) as client:
        return pictures(client.infer(TritonDiffusers.model, TritonDiffusers().inputs(triton_http, ask)))


def over_grpc(endpoints: Endpoints, ask: Ask) -> Sequence[bytes]:
    """Send tensors over gRPC."""
    return _infer(endpoints, ask, TritonDiffusers.model)


def through_ensemble(endpoints: Endpoints, ask: Ask) -> Sequence[bytes]:
    """Send tensors over gRPC to the ensemble, which translates the prompt first."""
    return _infer(endpoints, ask, "ensemble")


def by_generate(endpoints: Endpoints, ask: Ask) -> Sequence[bytes]:
    """Send plain JSON."""
    body = {
        "task_id": f"bench-{ask.seed}",
        "prompt": ask.prompt,
        "steps": ask.steps,
        "cfg_scale": GUIDANCE_SCALE,
        "width": ask.side,
        "height": ask.side,
        "seed": str(ask.seed),
        "use_base64": True,
    }
    with contextlib.closing(http.client.HTTPConnection(endpoints.http, timeout=REQUEST_SECONDS)) as connection:
        connection.request("POST", f"/v2/models/{TritonDiffusers.model}/generate", json.dumps(body))
        reply = json.loads(connection.getresponse().read())
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return [base64.urlsafe_b64decode(reply["images_base64"])]


WAYS: Mapping[str, Way] = {
    "HTTP": over_http,
    "gRPC": over_grpc,
    "generate": by_generate,
    "ensemble": through_ensemble,
}


def _infer(endpoints: Endpoints, ask: Ask, model: str) -> Sequence[bytes]:
    with contextlib.closing(triton.InferenceServerClient(endpoints.grpc)) as client:
        return pictures(client.infer(model, TritonDiffusers().inputs(triton, ask), client_timeout=REQUEST_SECONDS))


class Rounds:
    """Rounds of the same requests, all sent at once."""

    def __init__(self, endpoints: Endpoints, asks: Sequence[Ask], pool: ThreadPoolExecutor) -> None:
        self._endpoints = endpoints
        self._calls = list(zip([*WAYS.values()] * len(asks), asks, strict=False))
        self._pool = pool

    def run(self, strike: Callable[[], None] = lambda: None) -> Sequence[Answer]:
        """Send all, call ``strike``, and wait for all."""
        waiting = [self._pool.submit(self._answer, way, ask) for way, ask in self._calls]
        strike()
        return [each.result() for each in waiting]

    def wait_for_engine(self) -> None:
        """Return when a request has been answered: the engine of the round before may have died at its end."""
        if error := self._answer(*self._calls[0]).error:
            raise RuntimeError(error)

    def _answer(self, way: Way, ask: Ask) -> Answer:
        images, error = "", ""
        try:
            images = hashlib.sha256(b"".join(way(self._endpoints, ask))).hexdigest()
        except Exception as failure:  # noqa: BLE001  # counted, whatever it is
            error = f"{type(failure).__name__}: {failure}"
        return Answer(images, error, time.monotonic())


def strike_engine(launcher: int, number: int) -> float:
    """Send a signal to the engine process of a server, once there is one, and return when (``time.monotonic``)."""
    command = ("pgrep", "--parent", str(launcher), "--full", _ENGINE)
    deadline = time.monotonic() + REQUEST_SECONDS
    while time.monotonic() < deadline:
        for found in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(found), number)
                return time.monotonic()
        time.sleep(_TICK)
    raise TimeoutError("the server has no engine process")


def one_round(
    rounds: Rounds, launcher: int, number: int, moment: float, expected: Sequence[Answer], say: Progress
) -> dict[str, Any]:
    """Return the figures of a round in which the engine gets a signal after ``moment`` seconds."""
    rounds.wait_for_engine()
    struck = 0.0

    def strike() -> None:
        nonlocal struck
        time.sleep(moment)
        struck = strike_engine(launcher, number)

    answers = rounds.run(strike)
    for answer in answers:
        if answer.error:
            say(f"lost: {answer.error}")
    pairs = zip(answers, expected, strict=True)
    return {
        "moment": round(moment, 3),
        "in_flight": sum(answer.at > struck for answer in answers),
        "failed": sum(bool(answer.error) for answer in answers),
        "different": sum(answer.images != other.images for answer, other in pairs if not answer.error),
        "first_answer": min((answer.at - struck for answer in answers if answer.at > struck), default=None),
        "last_answer": max(answer.at for answer in answers) - struck,
    }


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of all rounds with one signal."""
    first = [each["first_answer"] for each in found if each["first_answer"] is not None]
    last = [each["last_answer"] for each in found if each["first_answer"] is not None]
    return {
        "rounds": len(found),
        "requests": REQUESTS * len(found),
        **{name: sum(each[name] for each in found) for name in ("in_flight", "failed", "different")},
        "first_answer_median": percentile(first, 50),
        "first_answer_max": max(first, default=float("nan")),
        "last_answer_median": percentile(last, 50),
        "each_round": list(found),
    }


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    header = ["signal", "rounds", "requests", "in flight", "lost", "other images"]
    header += ["first answer after, median (s)", "maximum (s)", "all answered after, median (s)"]
    rows = [
        [
            name,
            *(str(found[key]) for key in ("rounds", "requests", "in_flight", "failed", "different")),
            *(f"{found[key]:.1f}" for key in ("first_answer_median", "first_answer_max", "last_answer_median")),
        ]
        for name, found in figures["signals"].items()
    ]
    return markdown_table(header, rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures in a sentence or two."""
    load = figures["workload"]
    return (
        f"{REQUESTS} requests a round, of {load['side_pixels']}×{load['side_pixels']} pixels and {load['steps']} steps,"
        f" answered in {load['undisturbed_seconds']:.1f} s without a death; an engine that does not answer for"
        f" {load['hang_seconds']:g} s is killed. {machine_line(figures['machine'])}."
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
    requests = [asks.make_own(options.steps, 1) for _ in range(REQUESTS)]
    hang = ["--hang-timeout", str(options.hang_seconds)]
    say("starting the server")
    with _started(options.model_dir, hang) as endpoints, ThreadPoolExecutor(REQUESTS) as pool:
        rounds = Rounds(endpoints, requests, pool)
        rounds.run()  # warm up
        began = time.monotonic()
        expected = rounds.run()
        seconds = time.monotonic() - began
        if lost := [answer.error for answer in expected if answer.error]:
            raise SystemExit(f"error: {lost[0]}")
        chance = random.Random(options.seed)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIGNALS}
        for count in range(options.rounds):
            for name, number in SIGNALS.items():
                moment = chance.uniform(0.0, seconds)
                found[name].append(one_round(rounds, endpoints.pid, number, moment, expected, say))
            say(f"round {count + 1} of {options.rounds}: {json.dumps({name: found[name][-1] for name in SIGNALS})}")
    figures = {
        "machine": described,
        "workload": {
            "side_pixels": side,
            "steps": options.steps,
            "seed": options.seed,
            "undisturbed_seconds": round(seconds, 2),
            "hang_seconds": options.hang_seconds,
        },
        "signals": {name: summary(each) for name, each in found.items()},
    }
    write_json(options.out / "deaths.json", figures)
    say("done; figures are in the results folder")
    print(table(figures), note(figures), sep="\n\n")


@contextlib.contextmanager
def _started(model_dir: Path, arguments: Sequence[str]) -> Iterator[Endpoints]:
    with servers({"ours": MODEL_REPOSITORY}, model_dir, _SETTINGS, arguments) as started:
        yield started["ours"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deaths", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--rounds", type=int, default=50, help="rounds with each signal (default: %(default)s)")
    add("--steps", type=int, default=20, help="steps of an image (default: %(default)s)")
    add("--hang-seconds", type=float, default=2.0, help="`serve --hang-timeout` (default: %(default)g)")
    add("--seed", type=int, default=1, help="of prompts, images and moments (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
