"""One denoising step: a shared denoiser call, then each sample's own scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.engines import Batch, Engine
from triton_diffusers.errors import EngineFailure
from triton_diffusers.families.family import Family
from triton_diffusers.inflight.control import Control, residuals_of
from triton_diffusers.inflight.job import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The denoiser's output for a sample: prediction (rows, channels, h, w) and deep features (rows, d, h, w)."""

    values: torch.Tensor
    deep: torch.Tensor


def predict(engine: Engine, samples: Sequence[Sample], max_rows: int) -> Sequence[Prediction]:
    """Return the denoiser's predictions for samples of one batch key, in calls of at most ``max_rows`` rows.

    It has no side effects, so it can be retried.
    """
    family, device = engine.family, engine.device
    latents, timesteps, inputs, deep = [], [], [], []
    conditions: list[torch.Tensor] = []
    loras: list[LoraSet | None] = []
    controls: list[tuple[Control, ...]] = []
    for sample in samples:
        sample.move(device)
        timestep, rows = sample.timestep, sample.rows
        scaled = family.schedule.model_input(sample.scheduler, sample.latents[None], timestep)
        latents.append(scaled.expand(rows, -1, -1, -1))
        if sample.condition is not None:
            conditions.append(sample.condition.expand(rows, -1, -1, -1))
        timesteps.append(timestep.float().expand(rows))
        inputs.append(sample.inputs)
        loras.extend([sample.loras] * rows)
        controls.extend([sample.active_controls] * rows)
        if sample.deep is not None:
            deep.append(sample.deep[-rows:])
    noisy = torch.cat(latents)
    batch = Batch(
        latents=torch.cat([noisy, torch.cat(conditions)], dim=1) if conditions else noisy,
        timesteps=torch.cat(timesteps),
        inputs=family.collate(inputs),
        loras=loras,
        deep=torch.cat(deep) if deep else None,
    )

    def call(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        part = batch.rows(rows)
        residuals = residuals_of(controls[rows], noisy[rows], part.timesteps, part.inputs)
        return engine.predict(replace(part, residuals=residuals))

    # One call, unless a single image with many prompts exceeds ``max_rows``.
    made = [call(slice(first, first + max_rows)) for first in range(0, len(noisy), max_rows)]
    values, features = made[0] if len(made) == 1 else map(torch.cat, zip(*made, strict=True))
    sizes = [len(rows) for rows in latents]
    return [Prediction(*parts) for parts in zip(torch.split(values, sizes), torch.split(features, sizes), strict=True)]


def advance(family: Family, sample: Sample, prediction: Prediction) -> None:
    """Apply guidance and the scheduler's step to a sample's prediction.

    Raises:
        EngineFailure: the prediction or the latents are not finite.
    """
    if not prediction.values.isfinite().all():
        raise EngineFailure(
            f"the model ({family.entry.denoiser}) gave NaN or infinite values; try other settings or another precision"
        )
    values = family.guidance.combine(prediction.values, sample.conditioning.weights, sample.guidance_scale)
    output = sample.scheduler.step(values, sample.timestep, sample.latents[None], **sample.step_options)
    sample.latents = output.prev_sample[0]
    if not sample.latents.isfinite().all():
        raise EngineFailure(f"the latents became infinite at step {sample.steps_done + 1}; try another scheduler")
    estimate = family.schedule.expected(sample.scheduler, output)
    sample.expected = sample.latents if estimate is None else estimate[0]
    sample.position += 1
    if sample.denoised or sample.next_is_whole:
        sample.deep = None
    elif sample.deep is None:
        sample.deep = prediction.deep.clone()  # a view would keep the whole batch's features in memory
    if sample.inpaint is not None:
        sample.latents = sample.inpaint.restore(family.schedule, sample.latents, sample.scheduler, sample.position)
