"""Triton's cost: one image through the server against the same image through the engine loop in this process.

``python -m benchmarks.overhead``; see ``docs/benchmarks.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image

from benchmarks.figures import spread
from benchmarks.load import REQUEST_SECONDS, Caller
from benchmarks.perf_analyzer import INPUT_DATA, PerfAnalyzer, PerfAnalyzerMissing
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR, MODEL_REPOSITORY, end_on_sigterm, servers
from benchmarks.systems import TritonDiffusers, pictures, tensor
from benchmarks.workload import GUIDANCE_SCALE, Ask, Asks, native_side
from triton_diffusers.api.contract import INPUT_BY_NAME

ENGINE, GRPC, HTTP = "engine loop alone", "Triton, gRPC", "Triton, HTTP"
_WARM_UPS = 2
_CONCURRENCIES = (1, 8)
_WAITING = 8
_WAITING_STEPS = 20
_NOISE_SIDE = 576  # pixels


class EngineAlone:
    """The engine loop in this process, without Triton, mailbox, job board or metrics."""

    def __init__(self, model_dir: Path) -> None:
        # Imported here, since they take seconds that --help need not.
        from triton_diffusers.checkpoints.load import load_components
        from triton_diffusers.engines.eager import EagerEngine
        from triton_diffusers.inflight.loop import EngineLoop
        from triton_diffusers.settings import Settings

        _be_silent()
        settings = Settings(model_dir=model_dir, store="")
        self._loop = EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="benchmark")
        self._loop.start()

    def close(self) -> None:
        """Stop the loop."""
        self._loop.stop()

    def call(self, ask: Ask) -> Sequence[bytes]:
        """Make pictures of a request. Raises what the job ended with, if it did not succeed."""
        from triton_diffusers.api.request import GenerationRequest

        job = self._loop.submit(
            GenerationRequest(
                task_id=f"bench-{ask.seed}",
                prompt=ask.prompt,
                steps=ask.steps,
                guidance_scale=GUIDANCE_SCALE,
                width=ask.side,
                height=ask.side,
                seed=ask.seed,
                image_num=ask.images,
            )
        )
        self._loop.wait([job], REQUEST_SECONDS)
        if job.result is None:
            raise job.error or TimeoutError(f"no picture after {REQUEST_SECONDS:.0f} s")
        return job.result.images


class HttpCaller:
    """Sends requests over HTTP. To be used by the thread that made it."""

    def __init__(self, address: str) -> None:
        self._system = TritonDiffusers()
        self._client = triton_http.InferenceServerClient(address, network_timeout=REQUEST_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def call(self, ask: Ask) -> Sequence[bytes]:
        """Send a request and wait for its pictures. Raises ``InferenceServerException``."""
        return pictures(self._client.infer(self._system.model, self._system.inputs(triton_http, ask)))


def measure_ways(
    ways: Mapping[str, Callable[[Ask], Sequence[bytes]]],
    make: Callable[[], Ask],
    rounds: int,
    limit: float,
    say: Progress,
) -> dict[str, list[float]]:
    """Seconds of each way in each round. The ways take turns, in another order each time.

    No round begins later than ``limit`` seconds after the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for name in names:
        for _ in range(_WARM_UPS):
            ways[name](make())
    began = time.monotonic()
    for number in range(rounds):
        if time.monotonic() - began > limit:
            say(f"stopped after {number} rounds, since {limit:.0f} s are over")
            break
        for name in names:
            ask = make()
            sent = time.perf_counter()
            ways[name](ask)
            seconds[name].append(time.perf_counter() - sent)
        names = [*names[1:], names[0]]
        if number % 5 == 4:
            medians = (f"{name} {statistics.median(values):.3f} s" for name, values in seconds.items())
            say(f"round {number + 1} of {rounds}: " + ", ".join(medians))
    return seconds


def overheads(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Each way's spread in seconds, and what it takes beyond the engine alone, as a share of the engine's median."""
    alone = statistics.median(seconds[ENGINE])
    return {
        name: {
            **spread(values),
            "rounds": len(values),
            "overhead": statistics.median(values) / alone - 1,
            "overhead_paired": statistics.median(
                value - other for value, other in zip(values, seconds[ENGINE], strict=True)
            )
            / alone,
            "overhead_of_minima": min(values) / min(seconds[ENGINE]) - 1,
        }
        for name, values in seconds.items()
    }


def measure_perf_analyzer(address: str, requests: int, say: Progress) -> list[dict[str, float | str]]:
    """``perf_analyzer``'s figures of each model at each concurrency; empty, with the reason said, if it cannot run."""
    figures = []
    try:
        analyzer = PerfAnalyzer.get()
        for model, concurrency in itertools.product(INPUT_DATA, _CONCURRENCIES):
            say(f"perf_analyzer: {model}, {requests} requests, {concurrency} at a time")
            figures.append(analyzer.run(model, address, concurrency=concurrency, requests=requests))
    except PerfAnalyzerMissing as error:
        say(f"warning: no figures of perf_analyzer: {error}")
    return figures


def measure_waiting(address: str, rounds: int, say: Progress) -> dict[str, float]:
    """Measure what requests with large images cost others while they wait, on a server with one image in flight.

    Returns medians in seconds: ``hand_over`` from arrival in the model's process to admission by an idle engine, and
    ``run`` and ``run_beside_waiting`` of one request, without and with requests of a megabyte each in the queue.
    """
    client = triton_grpc.InferenceServerClient(address)
    image = _noise()
    seconds: dict[str, list[float]] = {"hand_over": [], "run": [], "run_beside_waiting": []}
    for number in range(rounds):
        say(f"waiting requests: round {number + 1} of {rounds}")
        for name, waiting in (("run", 0), ("run_beside_waiting", _WAITING)):
            # The images are read while the first request runs, so that they only wait beside the second.
            first, second = (_send(client, steps=_WAITING_STEPS) for _ in range(2))
            others = [_send(client, steps=1, func_name="i2i", image=image) for _ in range(waiting)]
            seconds["hand_over"].append(first.result()["queue_seconds"])
            seconds[name].append(second.result()["run_seconds"])
            for other in others:
                other.result()
    client.close()
    return {
        "image_bytes": len(image),
        "waiting": _WAITING,
        "steps": _WAITING_STEPS,
        **{name: statistics.median(values) for name, values in seconds.items()},
    }


def _send(client: Any, **values: Any) -> Future[dict[str, float]]:
    """Send a request to ``sd_base``; the result is its times."""
    answered: Future[dict[str, float]] = Future()

    def answer(result: Any, error: Any) -> None:
        if error is None:
            answered.set_result(
                {name: float(result.as_numpy(name).item()) for name in ("queue_seconds", "run_seconds")}
            )
        else:
            answered.set_exception(error)

    values = {"task_id": "bench", "prompt": "a red apple", "seed": "1", **values}
    inputs = [tensor(triton_grpc, name, INPUT_BY_NAME[name].datatype, value) for name, value in values.items()]
    client.async_infer("sd_base", inputs, answer, client_timeout=REQUEST_SECONDS)
    return answered


def _noise() -> bytes:
    """Return a PNG of about a megabyte: noise cannot be compressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (_NOISE_SIDE, _NOISE_SIDE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    ways = [
        [
            name,
            f"{way['median']:.3f}",
            f"{way['quartile_1']:.3f} … {way['quartile_3']:.3f}",
            "" if name == ENGINE else f"{way['overhead']:+.1%}",
            "" if name == ENGINE else f"{way['overhead_paired']:+.1%}",
        ]
        for name, way in figures["ways"].items()
    ]
    return markdown_table(["", "median (s)", "quartiles (s)", "overhead", "paired"], ways)


def perf_analyzer_table(figures: Mapping[str, Any]) -> str:
    """Return the output of ``perf_analyzer`` as Markdown."""
    runs = [
        [
            f"`{run['model']}`",
            f"{run['concurrency']}",
            f"{run['requests']}",
            f"{run['requests_per_second']:.2f}",
            *(f"{run[name]:.2f}" for name in ("p50", "p95", "p99")),
        ]
        for run in figures["perf_analyzer"]
    ]
    return markdown_table(
        ["model", "concurrency", "requests", "requests per second", "p50 (s)", "p95 (s)", "p99 (s)"], runs
    )


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures in a sentence or two."""
    load, rounds = figures["workload"], figures["ways"][ENGINE]["rounds"]
    return (
        f"One image of {load['side_pixels']}×{load['side_pixels']} pixels, {load['steps']} steps, {rounds} rounds. "
        f"{machine_line(figures['machine'])}."
    )


def waiting_note(figures: Mapping[str, Any]) -> str:
    """Return what hand-over and waiting requests cost, in a sentence or two."""
    cost = figures["waiting"]
    slower = cost["run_beside_waiting"] / cost["run"] - 1
    return (
        f"Hand-over to an idle engine: {cost['hand_over'] * 1000:.1f} ms at the median. {cost['waiting']} waiting"
        f" requests with {cost['image_bytes'] / 1e6:.1f} MB each change the time of one of {cost['steps']} steps by"
        f" {slower:+.1%} ({cost['run']:.3f} s to {cost['run_beside_waiting']:.3f} s)."
    )


def main() -> None:
    """Run the benchmark."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    side = native_side(options.model_dir)
    asks = Asks(side, options.seed)
    say("starting the server")
    with ExitStack() as stack:
        endpoint = stack.enter_context(servers({"ours": MODEL_REPOSITORY}, options.model_dir))["ours"]
        say("loading the model into this process")
        alone = EngineAlone(options.model_dir)
        stack.callback(alone.close)
        over_grpc, over_http = Caller(TritonDiffusers(), endpoint.grpc), HttpCaller(endpoint.http)
        stack.callback(over_grpc.close)
        stack.callback(over_http.close)
        described["tritonserver"] = over_grpc.server_version
        ways = {ENGINE: alone.call, GRPC: over_grpc.call, HTTP: over_http.call}
        seconds = measure_ways(ways, lambda: asks.make_own(options.steps, 1), options.rounds, options.seconds, say)
    with servers({"ours": MODEL_REPOSITORY}, options.model_dir) as started:
        analyzed = measure_perf_analyzer(started["ours"].grpc, options.requests, say)
    one_in_flight = {"TRITON_DIFFUSERS_MAX_IMAGES_IN_FLIGHT": "1"}
    with servers({"ours": MODEL_REPOSITORY}, options.model_dir, one_in_flight) as started:
        waiting = measure_waiting(started["ours"].grpc, options.waiting_rounds, say)
    figures = {
        "machine": described,
        "workload": {"side_pixels": side, "steps": options.steps, "seed": options.seed},
        "ways": overheads(seconds),
        "perf_analyzer": analyzed,
        "waiting": waiting,
    }
    write_json(options.out / "overhead.json", figures)
    say("done; figures are in the results folder")
    print(table(figures), note(figures), waiting_note(figures), perf_analyzer_table(figures), sep="\n\n")


def _be_silent() -> None:
    """No progress bars and no advice while the model is loaded."""
    import diffusers
    import transformers

    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    add = parser.add_argument
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="DIR", help="model directory (default: models/emoji)")
    add("--rounds", type=int, default=40, help="images made in each of the three ways (default: %(default)s)")
    add("--seconds", type=float, default=240.0, help="begin no round later than this (default: %(default)g)")
    add("--steps", type=int, default=20, help="steps of an image (default: %(default)s)")
    add("--requests", type=int, default=32, help="requests of each perf_analyzer run (default: %(default)s)")
    add("--waiting-rounds", type=int, default=15, help="rounds with waiting requests (default: %(default)s)")
    add("--seed", type=int, default=1, help="of prompts and pictures (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
