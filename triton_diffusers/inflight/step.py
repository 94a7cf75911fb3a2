"""One denoising step: a shared UNet call, then each sample's own scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.engines import Engine
from triton_diffusers.errors import EngineFailure
from triton_diffusers.inflight.control import Control, residuals_of
from triton_diffusers.inflight.job import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """UNet output for one sample: its prediction (rows, channels, h, w) and deep features (rows, d, h, w)."""

    values: torch.Tensor
    deep: torch.Tensor


def predict(engine: Engine, samples: Sequence[Sample], max_rows: int) -> Sequence[Prediction]:
    """Return the UNet's predictions for samples of one batch key, in calls of at most ``max_rows`` rows.

    It has no side effects, so it can be retried.
    """
    latents, conditions, timesteps, states, deep, guidance = [], [], [], [], [], []
    loras: list[LoraSet | None] = []
    controls: list[tuple[Control, ...]] = []
    for sample in samples:
        timestep, rows = sample.timestep, sample.rows
        scaled = sample.scheduler.scale_model_input(sample.latents[None], timestep)
        latents.append(scaled.expand(rows, -1, -1, -1))
        if sample.condition is not None:
            conditions.append(sample.condition.expand(rows, -1, -1, -1))
        timesteps.append(timestep.float().expand(rows))
        states.append(sample.states)
        loras.extend([sample.loras] * rows)
        controls.extend([sample.active_controls] * rows)
        if sample.deep is not None:
            deep.append(sample.deep[-rows:])
        if sample.guidance is not None:
            guidance.append(sample.guidance.expand(rows, -1))
    noisy, times, texts = torch.cat(latents), torch.cat(timesteps), torch.cat(states)
    beside = torch.cat(conditions) if conditions else None
    taken_over = torch.cat(deep) if deep else None
    scales = torch.cat(guidance) if guidance else None

    def call(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        residuals = residuals_of(controls[rows], noisy[rows], times[rows], texts[rows])
        inputs = noisy[rows] if beside is None else torch.cat([noisy[rows], beside[rows]], dim=1)
        features = None if taken_over is None else taken_over[rows]
        embedded = None if scales is None else scales[rows]
        return engine.predict(inputs, times[rows], texts[rows], loras[rows], features, residuals, embedded)

    # One call, unless a single image with many prompts exceeds ``max_rows``.
    made = [call(slice(first, first + max_rows)) for first in range(0, len(noisy), max_rows)]
    values, features = made[0] if len(made) == 1 else map(torch.cat, zip(*made, strict=True))
    sizes = [len(rows) for rows in states]
    return [Prediction(*parts) for parts in zip(torch.split(values, sizes), torch.split(features, sizes), strict=True)]


def advance(sample: Sample, prediction: Prediction) -> None:
    """Apply guidance and the scheduler's step to a sample's prediction.

    Raises:
        EngineFailure: the prediction or the latents are not finite.
    """
    if not prediction.values.isfinite().all():
        raise EngineFailure("the model (unet) gave NaN or infinite values; try other settings or another precision")
    values = sample.conditioning.guide(torch.split(prediction.values, 1), sample.guidance_scale)
    output = sample.scheduler.step(values, sample.timestep, sample.latents[None], **sample.step_options)
    sample.latents = output.prev_sample[0]
    if not sample.latents.isfinite().all():
        raise EngineFailure(f"the latents became infinite at step {sample.steps_done + 1}; try another scheduler")
    sample.expected = _expected(sample, output)
    sample.position += 1
    if sample.denoised or sample.next_is_whole:
        sample.deep = None
    elif sample.deep is None:
        sample.deep = prediction.deep.clone()  # a view would keep the whole batch's features in memory
    if sample.inpaint is not None:
        sample.latents = sample.inpaint.restore(sample.latents, sample.scheduler, sample.position)


def _expected(sample: Sample, output: object) -> torch.Tensor:
    """Return the scheduler's estimate of the final latents, or the current latents if it has none."""
    estimate = getattr(output, "pred_original_sample", None)
    if estimate is None:  # data-predicting multistep solvers keep it as their latest model output
        outputs = getattr(sample.scheduler, "model_outputs", None) or [None]
        predicts_data = str(sample.scheduler.config.get("algorithm_type", "")).endswith("dpmsolver++")
        estimate = outputs[-1] if predicts_data or sample.scheduler.config.get("predict_x0") else None
    return sample.latents if estimate is None else estimate[0]
