"""Two programs in one process that take turns: a figure and its baseline, measured within seconds of each other.

What counts is the median of the pairs' ratios. The programs are requests to an engine loop on the embedded model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.settings import Settings

_PATIENCE = 600.0


@dataclass(frozen=True)
class Case:
    """A figure and its baseline: two functions that take turns, each giving seconds."""

    name: str
    says: str
    measured: Callable[[], float]
    baseline: Callable[[], float]


def seconds(loop: EngineLoop, requests: Sequence[GenerationRequest]) -> float:
    """Seconds until all of some requests, sent at once, are answered."""
    began = time.perf_counter()
    jobs = [loop.submit(request) for request in requests]
    for job in jobs:
        loop.wait([job], _PATIENCE)
        if job.result is None:
            raise RuntimeError(f"a request failed: {job.error}")
    return time.perf_counter() - began


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Time the case and its baseline in turns; seconds, and the median of the pairs' ratios."""
    case.measured(), case.baseline()  # the first use reads files and stacks tensors
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            baseline, measured = case.baseline(), case.measured()
        else:
            measured, baseline = case.measured(), case.baseline()
        pairs.append((measured, baseline))
    ratios = [measured / baseline for measured, baseline in pairs]
    return {
        "says": case.says,
        "seconds": statistics.median(measured for measured, _ in pairs),
        "baseline_seconds": statistics.median(baseline for _, baseline in pairs),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = [
        (
            f"{name}: {found['says']}",
            f"{found['seconds']:.3f}",
            f"{found['baseline_seconds']:.3f}",
            f"{found['ratio']:.3f}",
        )
        for name, found in figures["cases"].items()
    ]
    return markdown_table(("", "seconds", "baseline", "ratio"), rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return a line about the machine and the versions of the table."""
    return machine_line(figures["machine"])


def run(
    name: str,
    description: str | None,
    make_cases: Callable[[EngineLoop, int], Sequence[Case]],
    make_model: Callable[[Path], Path] = lambda folder: MODEL_DIR,
) -> None:
    """Return the command line of a benchmark: measure its cases, print a table, write ``results/<name>.json``.

    ``make_model`` gives the model directory, which it may make in an empty folder.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of each case (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each request (default: %(default)s)")
    parser.add_argument("--engine", default="eager", help="as the setting of this name (default: %(default)s)")
    parser.add_argument("--model-dir", type=Path, help="with the engine's artifact (default: the embedded model)")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")
    chosen = parser.parse_args()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    with tempfile.TemporaryDirectory() as runtime, tempfile.TemporaryDirectory() as made:
        settings = Settings(
            model_dir=chosen.model_dir or make_model(Path(made)),
            runtime_dir=Path(runtime),
            store="",
            close_safety=True,
            engine=chosen.engine,
        )
        choice = EngineChoice(settings)
        loop = EngineLoop(choice.make, settings, name="bench")
        loop.start()
        figures: dict[str, Any] = {}
        try:
            for case in make_cases(loop, chosen.steps):
                say(f"{case.name}: {case.says}")
                figures[case.name] = measure(case, chosen.rounds)
        finally:
            loop.stop()
    measured_with = {"engine": choice.made, "rounds": chosen.rounds, "steps": chosen.steps}
    write_json(chosen.output, {"machine": described, **measured_with, "cases": figures})
    print(table(json.loads(chosen.output.read_text(encoding="utf-8"))))
    print(machine_line(described))
