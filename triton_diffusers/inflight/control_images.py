"""A request's ControlNets, each over its picture, for all of its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from triton_diffusers.checkpoints.load import device_and_dtype
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.job import Job
from triton_diffusers.preprocess.preprocessors import Preprocessors
from triton_diffusers.settings import Settings


class ControlMaker:
    """Makes control pictures, with preprocessors' networks if need be: for the engine's thread alone."""

    def __init__(self, settings: Settings) -> None:
        self._preprocessors = Preprocessors(settings, device_and_dtype(settings)[0])

    def make(self, job: Job, size: tuple[int, int]) -> tuple[Control, ...]:
        """The controls of a job whose images are sampled at ``size``; what they look at is left with the job.

        Raises what ``Preprocessors.process`` raises.
        """
        if job.controlnets is None or job.pictures is None:
            return ()
        choices = job.request.controls
        sources = [(choice.process, picture) for choice, picture in zip(choices, job.pictures.controls, strict=True)]
        made: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
        for process, picture in sources:  # ControlNets that share a picture share what is made of it
            if (process, id(picture)) not in made:
                made[process, id(picture)] = self._preprocessors.process(process, np.asarray(picture))
        job.control_pictures = [made[process, id(picture)] for process, picture in sources]
        return tuple(
            Control(net, _floats(pixels, size), choice.scale, choice.start, choice.end)
            for net, pixels, choice in zip(job.controlnets.nets, job.control_pictures, choices, strict=True)
        )


def _floats(pixels: np.ndarray[Any, Any], size: tuple[int, int]) -> torch.Tensor:
    """uint8 (height, width, 3) as float32 (3, height, width) in 0 … 1, at ``size``."""
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
