"""Draws pictures with the server's own engine loop, as requests are drawn."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch
from PIL import Image

from training.emoji.pictures import PICTURE_SIZE, from_image, to_image
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.settings import Settings

PATIENCE_SECONDS = 3600.0


class Studio:
    """A running loop on a model directory. Use as a context manager."""

    def __init__(self, model_dir: Path, steps: int, guidance: float) -> None:
        self._base = GenerationRequest(
            task_id="evidence",
            prompt="",
            width=PICTURE_SIZE,
            height=PICTURE_SIZE,
            steps=steps,
            guidance_scale=guidance,
            embed_metadata=False,
        )
        self._scratch = TemporaryDirectory()
        choices: dict[str, Any] = {
            "model_dir": model_dir,
            "runtime_dir": Path(self._scratch.name),
            "dtype": "float32",
            "close_safety": True,
            "max_queue": 10_000,
            "store": "",
        }
        settings = Settings(**choices)
        self._loop = EngineLoop(lambda: EagerEngine(load_components(settings)), settings, name="sd_base")

    def __enter__(self) -> Self:
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.stop()
        self._scratch.cleanup()

    def draw(self, wishes: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Return an image for each request's fields, [N, 3, H, W] in -1..1. Raises the error of one that failed."""
        jobs = [self._loop.submit(replace(self._base, **wish)) for wish in wishes]
        pictures = []
        for job in jobs:
            self._loop.wait([job], PATIENCE_SECONDS)
            if job.result is None:
                raise job.error or TimeoutError(f"no picture after {PATIENCE_SECONDS} s")
            pictures.append(from_image(Image.open(BytesIO(job.result.images[0]))))
        return torch.stack(pictures)


def png(picture: torch.Tensor) -> bytes:
    """Return a picture [3, H, W] in -1..1 as a request carries it."""
    buffer = BytesIO()
    to_image(picture).save(buffer, "PNG")
    return buffer.getvalue()
