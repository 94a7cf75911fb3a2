"""Triton Diffusers' engine loop, as a server runs it, without Triton.

Options: ``engine`` and ``profile``, as the settings of these names; ``dtype``, of the eager engine; ``controlnet``;
``lora``; ``fixed``, whether the picture's size is one of the ``fixed_sizes``.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.contenders.turn import Turn, take_turn
from benchmarks.random_model import LORA
from triton_diffusers.api.request import ControlChoice, GenerationRequest, LoraChoice
from triton_diffusers.engines import Batch, Engine
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.settings import Settings

_PATIENCE = 3600.0
# Settings of another name.
_ASKED = ("controlnet", "lora", "fixed")


class _Counted:
    """An engine that says when it has made a prediction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.on_step: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the engine's own."""
        prediction = self._engine.predict(batch)
        self.on_step()
        return prediction


class Ours:
    """See ``benchmarks.contenders.turn.Drawer``."""

    packages = ("torch", "diffusers", "transformers", "openvino")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._runtime = tempfile.TemporaryDirectory()
        settings = Settings(
            model_dir=Path(turn.model),
            runtime_dir=Path(self._runtime.name),
            store="",
            close_safety=True,
            fixed_sizes=((turn.side, turn.side),) if turn.options.get("fixed") else (),
            **{name: value for name, value in turn.options.items() if name not in _ASKED},
        )
        picture = Path(turn.control).read_bytes()
        self._controls = (ControlChoice(path="", image=picture),) if turn.options.get("controlnet") else ()
        self._loras = (LoraChoice(LORA, 1.0),) if turn.options.get("lora") else ()
        self._profile = PROFILES[settings.profile]
        choice = EngineChoice(settings)
        made: list[_Counted] = []

        def make() -> Any:
            made.append(_Counted(choice.make()))
            return made[0]

        self._loop = EngineLoop(make, settings, name="sd_base")
        self._loop.start()
        self._engine = made[0]
        if choice.made != turn.options["engine"]:
            raise RuntimeError(f"{turn.options['engine']} is asked for, {choice.made} is what there is")

    def draw(self, steps: int, on_step: Callable[[], None]) -> Any:
        """See ``Drawer``."""
        turn = self._turn
        self._engine.on_step = on_step
        request = GenerationRequest(
            task_id="bench",
            prompt=turn.prompt,
            steps=steps,
            guidance_scale=turn.guidance,
            width=turn.side,
            height=turn.side,
            seed=turn.seed,
            scheduler="Euler",
            profile=self._profile,
            controls=self._controls,
            loras=self._loras,
        )
        job = self._loop.submit(request)
        self._loop.wait([job], _PATIENCE)
        if job.result is None:
            raise RuntimeError(f"the request failed: {job.error}")
        return Image.open(io.BytesIO(job.result.images[0]))


if __name__ == "__main__":
    take_turn(Ours)
