"""What LoRAs cost: switching them between requests, and mixing them in one batch.

``python -m benchmarks.lora``. The requests go to the engine loop in this process, in pairs that take turns: the figure
and its baseline are measured within seconds of each other, and the median of the pairs' ratios is what counts.
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
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.loading import load_components
from triton_diffusers.request import GenerationRequest, LoraChoice
from triton_diffusers.settings import Settings

FLAT, HIGH_CONTRAST = "lora/flat.safetensors", "lora/high-contrast.safetensors"


@dataclass(frozen=True)
class Case:
    """A figure and its baseline: two functions that take turns, each giving seconds."""

    name: str
    says: str
    measured: Callable[[], float]
    baseline: Callable[[], float]


class LoraBench:
    """Times requests on one loop."""

    def __init__(self, loop: EngineLoop, steps: int) -> None:
        self._loop = loop
        self._steps = steps
        self._turn = 0

    def seconds(self, *loras: Sequence[str]) -> float:
        """Seconds until all of some requests, sent at once, are answered; one request for each list of LoRAs."""
        began = time.perf_counter()
        jobs = [self._loop.submit(self._request(paths)) for paths in loras]
        for job in jobs:
            self._loop.wait([job], 600.0)
            if job.result is None:
                raise RuntimeError(f"a request failed: {job.error}")
        return time.perf_counter() - began

    def switching(self) -> float:
        """One request with another LoRA than the last one had."""
        self._turn += 1
        return self.seconds([FLAT if self._turn % 2 else HIGH_CONTRAST])

    def staying(self) -> float:
        """A request that follows one with the same LoRA; the average of both LoRAs."""
        times = []
        for path in (FLAT, HIGH_CONTRAST):
            self.seconds([path])
            times.append(self.seconds([path]))
        return statistics.fmean(times)

    def _request(self, paths: Sequence[str]) -> GenerationRequest:
        return GenerationRequest(
            task_id="bench",
            prompt="a red apple on a blue background",
            steps=self._steps,
            width=128,
            height=128,
            seed=1,
            loras=tuple(LoraChoice(path, 0.75) for path in paths),
        )


def cases(bench: LoraBench) -> list[Case]:
    """What is measured."""

    def switched() -> float:
        return statistics.fmean([bench.switching(), bench.switching()])

    return [
        Case("switching", "another LoRA at each request, against the same one again", switched, bench.staying),
        Case(
            "mixed batch",
            "two requests at once with two LoRAs, against both with the same one",
            lambda: bench.seconds([FLAT], [HIGH_CONTRAST]),
            lambda: statistics.fmean([bench.seconds([FLAT], [FLAT]), bench.seconds([HIGH_CONTRAST], [HIGH_CONTRAST])]),
        ),
        Case("one LoRA", "one LoRA, against none", lambda: bench.seconds([FLAT]), lambda: bench.seconds([])),
        Case(
            "two LoRAs",
            "two LoRAs, against none",
            lambda: bench.seconds([FLAT, HIGH_CONTRAST]),
            lambda: bench.seconds([]),
        ),
    ]


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
    """The figures as Markdown."""
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
    """What the table was measured on."""
    return machine_line(figures["machine"])


def main() -> None:
    """Measure, print a table, write ``results/lora.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lora", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of each case (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each request (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "lora.json")
    chosen = parser.parse_args()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    with tempfile.TemporaryDirectory() as runtime:
        settings = Settings(model_dir=MODEL_DIR, runtime_dir=Path(runtime), store="", close_safety=True)
        loop = EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="sd_base")
        loop.start()
        figures: dict[str, Any] = {}
        try:
            for case in cases(LoraBench(loop, chosen.steps)):
                say(f"{case.name}: {case.says}")
                figures[case.name] = measure(case, chosen.rounds)
        finally:
            loop.stop()
    write_json(chosen.output, {"machine": described, "rounds": chosen.rounds, "steps": chosen.steps, "cases": figures})
    print(table(json.loads(chosen.output.read_text(encoding="utf-8"))))
    print(machine_line(described))


if __name__ == "__main__":
    main()
