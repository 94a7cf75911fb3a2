"""stable-diffusion.cpp by its Python bindings, on the checkpoint itself; weights are converted when they are read.

It knows the shapes of Stable Diffusion 1.5 by heart, so it runs no tiny model, and it draws its own noise.
Options: ``wtype``, how weights are kept; ``flash``: flash attention; ``direct``: convolutions without im2col, in the
UNet (``vae_direct``: in the VAE).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from stable_diffusion_cpp import StableDiffusion

from benchmarks.contenders.turn import Turn, take_turn


class StableDiffusionCpp:
    """See ``benchmarks.contenders.turn.Drawer``."""

    packages = ("stable-diffusion-cpp-python",)

    def __init__(self, turn: Turn) -> None:
        options = turn.options
        self._turn = turn
        self._model = StableDiffusion(
            model_path=str(turn.base_model),
            wtype=options["wtype"],
            diffusion_flash_attn=options.get("flash", False),
            diffusion_conv_direct=options.get("direct", False),
            vae_conv_direct=options.get("vae_direct", False),
            vae_decode_only=True,
            n_threads=len(os.sched_getaffinity(0)),
            verbose=False,
        )

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """See ``Drawer``."""
        turn = self._turn
        reported = 0

        def progressed(step: int, of: int, seconds: float) -> None:
            # Said before the first step, too, and of other work with other totals.
            nonlocal reported
            if of == steps and step > reported:
                reported = step
                on_step()

        made = self._model.generate_image(
            prompt=turn.prompt,
            negative_prompt="",
            sample_method="euler",
            sample_steps=steps,
            cfg_scale=turn.guidance,
            width=turn.side,
            height=turn.side,
            seed=turn.seed,
            progress_callback=progressed,
        )
        return made[0]


if __name__ == "__main__":
    take_turn(StableDiffusionCpp)
