"""Find and read the ControlNets of a model directory. Engines run them."""

from __future__ import annotations

from triton_diffusers.adapters.controlnet.config import network_for, usual_channels
from triton_diffusers.adapters.controlnet.layout import HINT
from triton_diffusers.adapters.controlnet.reader import ControlNetReader
from triton_diffusers.adapters.controlnet.weights import ControlNetWeights, Identity

__all__ = ["CONTROLNET", "HINT", "ControlNetReader", "ControlNetWeights", "Identity", "network_for", "usual_channels"]

CONTROLNET = "controlnet"
"""The network's name among a model's networks."""
