"""Draws pictures under a ControlNet, with diffusers' own pipeline."""

# mypy: allow-untyped-calls

from collections.abc import Sequence

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

from training.emoji.evaluate import BATCH, GUIDANCE, STEPS
from training.emoji.pictures import from_image


def controlled_pipeline(
    pipeline: StableDiffusionPipeline, controlnet: ControlNetModel
) -> StableDiffusionControlNetPipeline:
    """Return the same parts under `controlnet`, without a progress bar."""
    controlled = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=controlnet)
    controlled.set_progress_bar_config(disable=True)
    return controlled


def generate_controlled(
    pipeline: StableDiffusionControlNetPipeline,
    prompts: Sequence[str],
    painted: torch.Tensor,
    seeds: Sequence[int],
    guidance: float = GUIDANCE,
    steps: int = STEPS,
) -> torch.Tensor:
    """One picture for each prompt and control picture, [N, 3, S, S] in -1..1; each depends on its own seed only.

    painted: control pictures [N, 3, S, S] in 0..1.
    """
    pictures = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        output = pipeline(
            list(prompts[part]),
            image=painted[part],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
        )
        pictures += [from_image(image) for image in output.images]
    return torch.stack(pictures)
