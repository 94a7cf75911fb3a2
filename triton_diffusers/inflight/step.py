"""One denoising step of many samples: a shared UNet call, then each sample's own scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triton_diffusers.engines import Engine
from triton_diffusers.inflight.job import Sample
from triton_diffusers.lora import LoraSet


def predict(engine: Engine, samples: Sequence[Sample]) -> Sequence[torch.Tensor]:
    """The UNet's predictions, for each sample (1 or 2, channels, h, w). Changes nothing, so it can be tried again."""
    latents, timesteps, states = [], [], []
    loras: list[LoraSet | None] = []
    for sample in samples:
        timestep = sample.timestep
        rows = len(sample.states)
        scaled = sample.scheduler.scale_model_input(sample.latents[None], timestep)
        if sample.condition is not None:
            scaled = torch.cat([scaled, sample.condition[None]], dim=1)
        latents.append(scaled.expand(rows, -1, -1, -1))
        timesteps.append(timestep.float().expand(rows))
        states.append(sample.states)
        loras.extend([sample.loras] * rows)
    predictions = engine.predict(torch.cat(latents), torch.cat(timesteps), torch.cat(states), loras)
    return torch.split(predictions, [len(rows) for rows in states])


def advance(sample: Sample, prediction: torch.Tensor) -> None:
    """Take a sample's prediction through guidance and its scheduler to the next step."""
    if len(prediction) == 2:
        unconditional, conditional = torch.split(prediction, 1)
        prediction = unconditional + sample.guidance_scale * (conditional - unconditional)
    output = sample.scheduler.step(prediction, sample.timestep, sample.latents[None], **sample.step_options)
    sample.latents = output.prev_sample[0]
    sample.expected = _expected(sample, output)
    sample.position += 1
    if sample.known is not None:
        sample.latents = sample.known.restore(sample.latents, sample.scheduler, sample.position)


def _expected(sample: Sample, output: object) -> torch.Tensor:
    """What the scheduler takes the final latents to be, where it says so; else the latents as they are."""
    said = getattr(output, "pred_original_sample", None)
    if said is None:  # the data-predicting multistep solvers keep it as their latest model output
        outputs = getattr(sample.scheduler, "model_outputs", None) or [None]
        predicts_data = str(sample.scheduler.config.get("algorithm_type", "")).endswith("dpmsolver++")
        said = outputs[-1] if predicts_data or sample.scheduler.config.get("predict_x0") else None
    return sample.latents if said is None else said[0]
