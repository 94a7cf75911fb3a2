"""The noise schedule: v-prediction with a nearly zero terminal signal, which every diffusers scheduler can express."""

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

TRAIN_STEPS = 1000
BETA_START = 0.00085
BETA_END = 0.02
SNR_CAP = 5.0

_COMMON = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}


def training_schedule() -> DDPMScheduler:
    """Return the schedule that adds noise and gives velocities in training."""
    return DDPMScheduler(**_COMMON, clip_sample=False)


def sampling_schedule() -> DPMSolverMultistepScheduler:
    """Return the default of the exported pipeline: DPM++ 2M."""
    scheduler = DPMSolverMultistepScheduler(**_COMMON, algorithm_type="dpmsolver++", solver_order=2)
    # Other scheduler classes read these when they are made from this config.
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return scheduler


def velocity_weights(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Loss weights of v-prediction, [N]: min-SNR (Hang et al. 2023, arXiv:2303.09556) with SNR + 1 in the place of SNR.

    With SNR itself the noisiest steps, which have next to no signal here and decide what is drawn, would not count.
    """
    alphas = alphas_cumprod[timesteps]
    weights = alphas / (1.0 - alphas) + 1.0
    return weights.clamp(max=SNR_CAP) / weights
