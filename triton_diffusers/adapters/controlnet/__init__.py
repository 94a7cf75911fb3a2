"""ControlNets of a model directory: their files, found and read. What runs them are the engines."""

from __future__ import annotations

from triton_diffusers.adapters.controlnet.config import network_for, usual_channels
from triton_diffusers.adapters.controlnet.layout import HINT
from triton_diffusers.adapters.controlnet.reader import ControlNetReader
from triton_diffusers.adapters.controlnet.weights import ControlNetWeights, Identity

__all__ = ["CONTROLNET", "HINT", "ControlNetReader", "ControlNetWeights", "Identity", "network_for", "usual_channels"]

CONTROLNET = "controlnet"
"""What the network is called among a model's networks."""
