"""Engines run a checkpoint's modules. ``ENGINES`` finds them by name; each class implements ``Engine``."""

from __future__ import annotations

from triton_diffusers.engines.batch import Batch
from triton_diffusers.engines.protocol import ControlNet, Engine
from triton_diffusers.families.denoiser import Residuals
from triton_diffusers.util.lazy import Registry

__all__ = ["ENGINES", "Batch", "ControlNet", "Engine", "Residuals"]

ENGINES = Registry("engine", {"eager": "triton_diffusers.engines.eager:EagerEngine"})
