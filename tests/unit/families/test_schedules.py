"""Schedules on latents of another device than the CPU, which ``meta`` stands for: it refuses to mix devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.unit.fake_engine import SCHEDULER_CONFIG
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.sampling.schedulers import SCHEDULERS, move_scheduler, takes_generator

SHAPE = (4, 8, 8)
STEPS = 6
META = torch.device("meta")


def step(schedule: NoiseSchedule, scheduler: Any, latents: torch.Tensor, position: int) -> torch.Tensor:
    timestep = scheduler.timesteps[position]
    options = {"generator": torch.Generator().manual_seed(0)} if takes_generator(scheduler) else {}
    values = schedule.model_input(scheduler, latents, timestep) * 0.1
    output = scheduler.step(values, timestep, latents, **options)
    estimate = schedule.expected(scheduler, output)
    assert estimate is None or estimate.device == latents.device
    made: torch.Tensor = output.prev_sample
    return made


@pytest.mark.parametrize("name", SCHEDULERS)
@torch.inference_mode()
def test_latents_stay_on_their_device(name: str) -> None:
    schedule = NoiseSchedule(SCHEDULER_CONFIG)
    scheduler = schedule.make(name, STEPS, SHAPE)
    noise = torch.zeros(1, *SHAPE, device=META)
    position = schedule.start(scheduler, STEPS, 0.9)
    latents = schedule.noised(scheduler, noise, noise, position)
    assert latents.device == schedule.pure_noise(scheduler, noise).device == META
    for index in range(position, len(scheduler.timesteps)):
        latents = step(schedule, scheduler, latents, index)
        assert latents.device == META


@pytest.mark.parametrize("name", SCHEDULERS)
@torch.inference_mode()
def test_a_scheduler_moves_between_steps(name: str) -> None:
    schedule = NoiseSchedule(SCHEDULER_CONFIG)
    scheduler = schedule.make(name, STEPS, SHAPE)
    latents = schedule.pure_noise(scheduler, torch.zeros(1, *SHAPE))
    for index in range(3):
        latents = step(schedule, scheduler, latents, index)
    move_scheduler(scheduler, META)
    latents = latents.to(META)
    for index in range(3, len(scheduler.timesteps)):
        latents = step(schedule, scheduler, latents, index)
    assert latents.device == META


def test_schedules_are_equal_by_their_configs() -> None:
    assert NoiseSchedule(SCHEDULER_CONFIG) == NoiseSchedule(dict(SCHEDULER_CONFIG))
    assert NoiseSchedule(SCHEDULER_CONFIG) != NoiseSchedule({**SCHEDULER_CONFIG, "beta_end": 0.02})
