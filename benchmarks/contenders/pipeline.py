"""diffusers' own pipeline: as it is by default, at its best without compilation, and with ``torch.compile``.

Options: ``dtype``; ``channels_last``; ``compile``; ``controlnet``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.contenders.turn import Turn, take_turn


class Pipeline:
    """See ``benchmarks.contenders.turn.Drawer``."""

    packages = ("torch", "diffusers", "transformers")

    def __init__(self, turn: Turn) -> None:
        from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

        options = turn.options
        self._turn = turn
        self._dtype = getattr(torch, options["dtype"])
        kind, parts = StableDiffusionPipeline, {}
        if options.get("controlnet"):
            parts["controlnet"] = ControlNetModel.from_pretrained(turn.controlnet, dtype=self._dtype)
            kind = StableDiffusionControlNetPipeline
        self._pipe = kind.from_pretrained(turn.base_model, dtype=self._dtype, local_files_only=True, **parts)
        self._inputs = {"image": Image.open(turn.control)} if parts else {}
        self._pipe.set_progress_bar_config(disable=True)
        if options.get("channels_last"):
            for module in (self._pipe.unet, self._pipe.vae):
                module.to(memory_format=torch.channels_last)
        if options.get("compile"):
            self._pipe.unet = torch.compile(self._pipe.unet)
            self._pipe.vae.decode = torch.compile(self._pipe.vae.decode)

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """See ``Drawer``."""
        turn = self._turn

        def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        # Freezing, which makes weights constants, is for code that cannot ask for gradients.
        with torch.no_grad():
            made = self._pipe(
                turn.prompt,
                num_inference_steps=steps,
                guidance_scale=turn.guidance,
                height=turn.side,
                width=turn.side,
                latents=torch.from_numpy(np.load(turn.noise)).to(self._dtype),
                callback_on_step_end=step_ended,
                **self._inputs,
            )
        return made.images[0]


if __name__ == "__main__":
    take_turn(Pipeline)
