"""optimum-intel's ``OVStableDiffusionPipeline`` on a model that ``benchmarks.contenders.openvino_models`` made.

Options: ``precision``, of the computation (``bf16`` or ``f32``); ``static``: shapes are fixed before compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.contenders.turn import Turn, take_turn


class Optimum:
    """See ``benchmarks.contenders.turn.Drawer``."""

    packages = ("optimum-intel", "openvino", "nncf", "torch", "diffusers", "transformers")

    def __init__(self, turn: Turn) -> None:
        from optimum.intel import OVStableDiffusionPipeline

        self._turn = turn
        self._pipe = OVStableDiffusionPipeline.from_pretrained(
            turn.artifact,
            compile=False,
            ov_config={"INFERENCE_PRECISION_HINT": turn.options["precision"], "PERFORMANCE_HINT": "LATENCY"},
        )
        if turn.options["static"]:
            self._pipe.reshape(batch_size=1, height=turn.side, width=turn.side, num_images_per_prompt=1)
        self._pipe.compile()
        self._pipe.set_progress_bar_config(disable=True)

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """See ``Drawer``."""
        import torch

        turn = self._turn

        def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        made = self._pipe(
            turn.prompt,
            num_inference_steps=steps,
            guidance_scale=turn.guidance,
            height=turn.side,
            width=turn.side,
            latents=torch.from_numpy(np.load(turn.noise)),
            callback_on_step_end=step_ended,
        )
        return made.images[0]


if __name__ == "__main__":
    take_turn(Optimum)
