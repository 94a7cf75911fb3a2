"""Cost of LoRAs: switching them between requests, and mixing them in one batch.

``python -m benchmarks.lora``; see ``benchmarks.pairs`` for how. Both of the embedded model's LoRAs change convolutions.
With ``--engine openvino --model-dir …`` it is the compiled engine, of an artifact that was built there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.pairs import Case, run, seconds
from triton_diffusers.api.request import GenerationRequest, LoraChoice
from triton_diffusers.inflight.loop import EngineLoop

_SHORT_STEPS, _LONG_STEPS = 8, 100
_LOOKS = 0.01  # seconds
_PATIENCE = 600.0
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
        """Return a request that follows one with the same LoRA; the average of both LoRAs."""
        times = []
        for path in (FLAT, HIGH_CONTRAST):
            self.seconds([path])
            times.append(self.seconds([path]))
        return statistics.fmean(times)

    def beside(self, paths: Sequence[str]) -> float:
        """Return the seconds of a short request without LoRA that comes while a long one with these is drawn."""
        long = self._loop.submit(replace(self._request(paths), image_num=4, steps=_LONG_STEPS))
        while long.started is None:
            time.sleep(_LOOKS)
        try:
            return seconds(self._loop, [replace(self._request([]), steps=_SHORT_STEPS)])
        finally:
            self._loop.cancel(long)
            self._loop.wait([long], _PATIENCE)

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
    """Return the cases to measure."""
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
        Case(
            "neighbour",
            "a short request while four images with a LoRA are drawn, against four without",
            lambda: bench.beside([FLAT]),
            lambda: bench.beside([]),
        ),
    ]


if __name__ == "__main__":
    run("lora", __doc__, cases)
