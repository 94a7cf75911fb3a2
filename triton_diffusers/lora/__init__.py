"""LoRA as data: files to low-rank layers, a request's LoRAs to one set, a batch's sets to stacked tensors.

A layer with LoRA computes ``W x + B (A x)``. Nothing is merged into the weights, so a request's LoRAs touch no other.
"""

from __future__ import annotations

from triton_diffusers.lora.batch import LoraBatch, LoraStacker
from triton_diffusers.lora.layer import Lora, LoraLayer
from triton_diffusers.lora.loader import LoraLoader
from triton_diffusers.lora.set import LoraSet
from triton_diffusers.lora.store import LoraStore
from triton_diffusers.lora.targets import TEXT_ENCODER, UNET, lora_modules

__all__ = [
    "TEXT_ENCODER",
    "UNET",
    "Lora",
    "LoraBatch",
    "LoraLayer",
    "LoraLoader",
    "LoraSet",
    "LoraStacker",
    "LoraStore",
    "lora_modules",
]
