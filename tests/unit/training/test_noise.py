import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from training.emoji.noise import sampling_schedule, training_schedule, velocity_weights


def test_the_terminal_signal_is_nearly_zero() -> None:
    assert training_schedule().alphas_cumprod[-1].sqrt() < 0.02


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler])
def test_every_scheduler_starts_from_the_config_with_the_same_noise(kind: type) -> None:
    scheduler = kind.from_config(sampling_schedule().config)  # type: ignore[attr-defined]
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == 999
    torch.testing.assert_close(scheduler.alphas_cumprod, training_schedule().alphas_cumprod)


def test_weights_are_capped_where_there_is_little_noise() -> None:
    alphas = training_schedule().alphas_cumprod
    weights = velocity_weights(alphas, torch.tensor([0, 999]))
    assert weights[0] < 0.02
    assert weights[1] == 1.0
