"""Pictures that are control pictures already."""

from __future__ import annotations

from triton_diffusers.preprocess.registry import Pixels


class Unchanged:
    """``tile``, whose ControlNets take the picture itself, and ``none``."""

    def process(self, pixels: Pixels) -> Pixels:
        return pixels
