"""Control images, made from the image that is to be drawn.

Pictures are [N, 3, S, S] in -1..1, control pictures the same in 0..1, as a ControlNet takes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from torch.nn import functional

from triton_diffusers.preprocess.canny import Canny

BLOCKS = 8
"""Blocks of colour on each side."""


def edges(pictures: torch.Tensor) -> torch.Tensor:
    """As the server's preprocessor `canny` draws them, so that it serves what was trained."""
    canny = Canny()
    pixels = ((pictures.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    drawn = np.stack([canny.process(np.ascontiguousarray(picture)) for picture in pixels.numpy()])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255.0


def colour_blocks(pictures: torch.Tensor) -> torch.Tensor:
    """Return the mean colours of a coarse grid, each over its whole block."""
    means = functional.adaptive_avg_pool2d(pictures, BLOCKS)
    flat = functional.interpolate(means, size=pictures.shape[-2:], mode="nearest")
    return (flat.clamp(-1.0, 1.0) + 1.0) / 2.0


@dataclass(frozen=True)
class Control:
    """A ControlNet to train: what it follows, where in the model directory it goes, and for how many iterations."""

    name: str
    paint: Callable[[torch.Tensor], torch.Tensor]
    folder: PurePosixPath
    iterations: int

    @property
    def stage(self) -> str:
        return f"controlnet-{self.name}"


CONTROLS = (
    # The model directory's own ControlNet: the one that a request gets which names none.
    Control("canny", edges, PurePosixPath("controlnet"), iterations=5000),
    Control("blocks", colour_blocks, PurePosixPath("controlnets/blocks"), iterations=3000),
)
