"""Whether a Stable Diffusion 2.x UNet predicts the noise (epsilon) or the velocity (v); its shapes are the same."""

from __future__ import annotations

from typing import Any

import torch

_STEPS = {875_000: "epsilon", 220_000: "epsilon", 140_000: "v_prediction", 110_000: "v_prediction"}
_FAR = -1.0  # below it, the answer to noise is not that noise


def by_global_step(step: int | None) -> str | None:
    """What the published checkpoint with so many training steps predicts: 2.0 and 2.1, base and 768; else None."""
    return None if step is None else _STEPS.get(step)


@torch.inference_mode()
def by_trial(unet: Any) -> str:
    """What the UNet in float32 predicts, found by asking it.

    At the last timestep a picture is almost all noise: a UNet that predicts noise gives back what it is given, one that
    predicts velocity gives about the negative of a picture. The constant input and the threshold are the convention of
    the web interfaces, so that a checkpoint that works there works here.
    """
    latents = torch.full((1, int(unet.config.in_channels), 8, 8), 0.5)
    states = torch.full((1, 2, int(unet.config.cross_attention_dim)), 0.5)
    predicted = unet(latents, torch.tensor([999]), encoder_hidden_states=states, return_dict=False)[0]
    difference = (predicted - latents[:, : predicted.shape[1]]).mean().item()
    return "v_prediction" if difference < _FAR else "epsilon"
