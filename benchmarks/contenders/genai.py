"""OpenVINO GenAI's ``Text2ImagePipeline`` on a model that ``benchmarks.contenders.openvino_models`` made.

Options: ``precision``, of the computation (``bf16`` or ``f32``); ``static``: shapes are fixed before compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino_genai
from PIL import Image

from benchmarks.contenders.turn import Turn, take_turn


class _Given(openvino_genai.Generator):  # type: ignore[misc]  # the package has no types
    """Random numbers that were drawn before, so that every contender begins with the same latents."""

    def __init__(self, numbers: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self._numbers = numbers

    def seed(self, seed: int) -> None:
        """Do nothing."""

    def next(self) -> float:
        """Return a number by itself: refused. Only a scheduler that adds noise in its steps would ask for one."""
        raise RuntimeError("a single random number is asked for; only the first latents were drawn before")

    def randn_tensor(self, shape: Any) -> Any:
        """All of them."""
        if tuple(shape) != self._numbers.shape:
            raise ValueError(f"latents of shape {tuple(shape)} are asked for, {self._numbers.shape} are there")
        return openvino.Tensor(self._numbers)


class GenAI:
    """See ``benchmarks.contenders.turn.Drawer``."""

    packages = ("openvino-genai", "openvino")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._pipe = openvino_genai.Text2ImagePipeline(turn.artifact)
        if turn.options["static"]:
            self._pipe.reshape(1, turn.side, turn.side, turn.guidance)
        self._pipe.compile(
            "CPU", **{"INFERENCE_PRECISION_HINT": turn.options["precision"], "PERFORMANCE_HINT": "LATENCY"}
        )

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """See ``Drawer``."""
        turn = self._turn

        def step_ended(step: int, steps: int, latent: Any) -> bool:
            on_step()
            return False

        made = self._pipe.generate(
            turn.prompt,
            negative_prompt="",
            num_inference_steps=steps,
            guidance_scale=turn.guidance,
            height=turn.side,
            width=turn.side,
            num_images_per_prompt=1,
            generator=_Given(np.load(turn.noise)),
            callback=step_ended,
        )
        return Image.fromarray(made.data[0])


if __name__ == "__main__":
    take_turn(GenAI)
