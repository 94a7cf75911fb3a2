"""What LoRAs cost: switching them between requests, and mixing them in one batch.

``python -m benchmarks.lora``; see ``benchmarks.pairs`` for how.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.pairs import Case, run, seconds
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.request import GenerationRequest, LoraChoice

FLAT, HIGH_CONTRAST = "lora/flat.safetensors", "lora/high-contrast.safetensors"


class LoraBench:
    """Times requests on one loop."""

    def __init__(self, loop: EngineLoop, steps: int) -> None:
        self._loop = loop
        self._steps = steps
        self._turn = 0

    def seconds(self, *loras: Sequence[str]) -> float:
        """Seconds for some requests, sent at once; one for each list of LoRAs."""
        return seconds(self._loop, [self._request(paths) for paths in loras])

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


def cases(loop: EngineLoop, steps: int) -> list[Case]:
    """What is measured."""
    bench = LoraBench(loop, steps)

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


if __name__ == "__main__":
    run("lora", __doc__, cases)
