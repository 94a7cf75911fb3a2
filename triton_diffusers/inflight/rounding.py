"""Warnings about values that cannot be applied exactly."""

from __future__ import annotations

from collections.abc import Iterable

from triton_diffusers.api.request import Function, GenerationRequest
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.job import Sample


def rounding_warnings(request: GenerationRequest, sample: Sample) -> list[str]:
    """Return warnings for a request whose images are sampled like ``sample``."""
    if request.unchanged:
        return ["denoising_strength: 0 returns the input image unchanged"]
    warnings = []
    steps, strength = request.steps, request.denoising_strength
    if request.function is not Function.TEXT_TO_IMAGE and steps * strength < 1:
        warnings.append(f"denoising_strength: {strength} of {steps} steps is less than one step; one step was run")
    made = steps - sample.first // sample.scheduler.order
    if not sample.conditioning.covers(made):
        warnings.append(f"prompt: only {made} of {steps} steps run, so some of its edits have no effect")
    return [*warnings, *_idle_controls(sample.controls, sample.steps)]


def _idle_controls(controls: Iterable[Control], steps: int) -> Iterable[str]:
    for number, control in enumerate(controls, 1):
        if not any(control.is_active(step, steps) for step in range(steps)):
            yield (
                f"control_start / control_end: no whole step of {steps} lies between {control.start} and"
                f" {control.end}; ControlNet {number} had no effect"
            )
