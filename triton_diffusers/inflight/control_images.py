"""Control images of a request, paired with their ControlNets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from triton_diffusers.checkpoints.load import device_and_dtype
from triton_diffusers.inflight.canvas import channels_first
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.job import Job
from triton_diffusers.preprocess.preprocessors import Preprocessors
from triton_diffusers.settings import Settings


class ControlBuilder:
    """Preprocessor of control images; uses networks, so only the engine's thread may call it."""

    def __init__(self, settings: Settings) -> None:
        self._preprocessors = Preprocessors(settings, device_and_dtype(settings)[0])

    def make(self, job: Job, size: tuple[int, int]) -> tuple[Control, ...]:
        """Return the controls of a job sampled at ``size``, and set its control images.

        Raises:
            TritonDiffusersError: preprocessing failed; see ``Preprocessors.process``.
        """
        if job.controlnets is None or job.sources is None:
            return ()
        choices = job.request.controls
        sources = [(choice.process, source) for choice, source in zip(choices, job.sources.controls, strict=True)]
        made: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
        for process, source in sources:  # equal inputs are preprocessed once
            if (process, id(source)) not in made:
                made[process, id(source)] = self._preprocessors.process(process, np.asarray(source))
        job.control_images = [made[process, id(source)] for process, source in sources]
        return tuple(
            Control(net, _to_tensor(pixels, size), choice.scale, choice.start, choice.end)
            for net, pixels, choice in zip(job.controlnets.nets, job.control_images, choices, strict=True)
        )


def _to_tensor(pixels: np.ndarray[Any, Any], size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 (height, width, 3) as float32 (3, height, width) in 0 … 1, resized to ``size``."""
    return torch.from_numpy(channels_first(Image.fromarray(pixels), size) / 255)
