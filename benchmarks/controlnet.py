"""Cost of ControlNets: switching them between requests, and mixing them in one batch.

``python -m benchmarks.controlnet``; see ``benchmarks.pairs`` for how. The ControlNets have random weights, on which
neither time nor memory depends, and the embedded model's architecture.
"""

from __future__ import annotations

import io
import statistics
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.pairs import Case, run, seconds
from benchmarks.servers import MODEL_DIR
from triton_diffusers.api.request import ControlChoice, GenerationRequest
from triton_diffusers.checkpoints.layout import BASE_MODEL
from triton_diffusers.inflight.loop import EngineLoop

ONE, OTHER = "one", "other"
_SIDE = 128


class ControlBench:
    """Times requests on one loop."""

    def __init__(self, loop: EngineLoop, steps: int) -> None:
        self._loop = loop
        self._steps = steps
        self._turn = 0

    def seconds(self, *paths: str | None, process: str = "none") -> float:
        """Seconds for some requests, sent at once; one for each path of a ControlNet, or none."""
        return seconds(self._loop, [self._request(path, process) for path in paths])

    def switching(self) -> float:
        """One request with another ControlNet than the last one had."""
        self._turn += 1
        return self.seconds(ONE if self._turn % 2 else OTHER)

    def staying(self) -> float:
        """Return a request that follows one with the same ControlNet; the average of both."""
        times = []
        for path in (ONE, OTHER):
            self.seconds(path)
            times.append(self.seconds(path))
        return statistics.fmean(times)

    def _request(self, path: str | None, process: str) -> GenerationRequest:
        choice = () if path is None else (ControlChoice(path=path, process=process, image=_picture()),)
        return GenerationRequest(
            task_id="bench",
            prompt="a red apple on a blue background",
            steps=self._steps,
            width=_SIDE,
            height=_SIDE,
            seed=1,
            controls=choice,
        )


@cache
def _picture() -> bytes:
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    ImageDraw.Draw(image).ellipse((24, 24, 104, 104), fill="red")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def cases(loop: EngineLoop, steps: int) -> list[Case]:
    """Return the cases to measure."""
    bench = ControlBench(loop, steps)

    def switched() -> float:
        return statistics.fmean([bench.switching(), bench.switching()])

    return [
        Case("switching", "another ControlNet at each request, against the same one again", switched, bench.staying),
        Case(
            "mixed batch",
            "two requests at once with two ControlNets, against both with the same one",
            lambda: bench.seconds(ONE, OTHER),
            lambda: statistics.fmean([bench.seconds(ONE, ONE), bench.seconds(OTHER, OTHER)]),
        ),
        Case("one ControlNet", "one, against none", lambda: bench.seconds(ONE), lambda: bench.seconds(None)),
        Case(
            "canny",
            "with the preprocessor, against without",
            lambda: bench.seconds(ONE, process="canny"),
            lambda: bench.seconds(ONE),
        ),
    ]


def _make_model(folder: Path) -> Path:
    """Return the embedded model with two ControlNets."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    (folder / BASE_MODEL).symlink_to(MODEL_DIR / BASE_MODEL)
    unet = UNet2DConditionModel.from_pretrained(MODEL_DIR / BASE_MODEL / "unet")
    for path in (ONE, OTHER):
        ControlNetModel.from_unet(unet).save_pretrained(folder / path)
    return folder


if __name__ == "__main__":
    run("controlnet", __doc__, cases, _make_model)
