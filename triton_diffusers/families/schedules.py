"""Schedules: how noise is added to latents and taken away again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from triton_diffusers.sampling.schedulers import SchedulerFactory, set_start


class Schedule(Protocol):
    """How a checkpoint's latents become an image, by a scheduler object for each image.

    Latents and noise have the shape (1, channels, h, w), on any device.
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """The checkpoint's scheduler config."""

    def make(self, name: str, steps: int, shape: tuple[int, ...]) -> Any:
        """Return a new scheduler with ``timesteps`` set, for latents of a ``shape`` (channels, h, w).

        Raises:
            InvalidRequest: the scheduler does not support this number of steps.
        """

    def warning(self, name: str) -> str | None:
        """Return a warning if a scheduler ignores a relevant option of the checkpoint's config; else None."""

    def start(self, scheduler: Any, steps: int, strength: float) -> int:
        """Set the first step for image-to-image at ``strength``, and return its index in ``timesteps``."""

    def pure_noise(self, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        """Return the initial latents of an image without a source."""

    def noised(self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, position: int) -> torch.Tensor:
        """Return ``latents`` at the noise level of the step at ``position``."""

    def model_input(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the latents as the denoiser takes them."""

    def expected(self, scheduler: Any, output: Any) -> torch.Tensor | None:
        """Return the estimate of the final latents after a step that gave ``output``; None if there is none."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Schedule of models that predict noise, velocity or data at discrete training steps."""

    config: Mapping[str, Any]
    _factory: SchedulerFactory = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factory", SchedulerFactory(self.config))

    def make(self, name: str, steps: int, shape: tuple[int, ...]) -> Any:
        """Return a new scheduler; the shape does not matter."""
        return self._factory.make(name, steps)

    def warning(self, name: str) -> str | None:
        """Return a warning about zero terminal SNR."""
        return self._factory.warning(name)

    def start(self, scheduler: Any, steps: int, strength: float) -> int:
        """Set the first step by diffusers' rule."""
        return set_start(scheduler, steps, strength)

    def pure_noise(self, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        """Return noise with the scheduler's deviation."""
        latents: torch.Tensor = noise * scheduler.init_noise_sigma
        return latents

    def noised(self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, position: int) -> torch.Tensor:
        """Return latents with noise."""
        timestep = scheduler.timesteps[position : position + 1]
        added: torch.Tensor = scheduler.add_noise(latents, noise, timestep)
        return added

    def model_input(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return latents scaled to the deviation of the training."""
        scaled: torch.Tensor = scheduler.scale_model_input(latents, timestep)
        return scaled

    def expected(self, scheduler: Any, output: Any) -> torch.Tensor | None:
        """Return the scheduler's own estimate."""
        estimate: torch.Tensor | None = getattr(output, "pred_original_sample", None)
        if estimate is None:  # data-predicting multistep solvers keep it as their latest model output
            outputs = getattr(scheduler, "model_outputs", None) or [None]
            predicts_data = str(scheduler.config.get("algorithm_type", "")).endswith("dpmsolver++")
            estimate = outputs[-1] if predicts_data or scheduler.config.get("predict_x0") else None
        return estimate
