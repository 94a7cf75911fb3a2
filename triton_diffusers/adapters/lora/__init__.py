"""LoRA as data: files become low-rank layers, a request's LoRAs one set, a batch's sets stacked tensors.

A layer with LoRA computes ``W x + B (A x)``; with a change of full rank it computes ``W x + D x``. Nothing is merged
into the weights, so a request's LoRAs do not affect others.
"""

from __future__ import annotations

from triton_diffusers.adapters.lora.batch import LoraBatch, LoraStacker
from triton_diffusers.adapters.lora.change_batch import ChangeBatch
from triton_diffusers.adapters.lora.groups import grouped
from triton_diffusers.adapters.lora.layer import LayerChange, Lora, LoraLayer
from triton_diffusers.adapters.lora.loader import LoraLoader
from triton_diffusers.adapters.lora.set import LoraSet
from triton_diffusers.adapters.lora.store import LoraStore
from triton_diffusers.adapters.lora.targets import TEXT_ENCODER, UNET, Target, lora_modules, target_modules

__all__ = [
    "TEXT_ENCODER",
    "UNET",
    "ChangeBatch",
    "LayerChange",
    "Lora",
    "LoraBatch",
    "LoraLayer",
    "LoraLoader",
    "LoraSet",
    "LoraStacker",
    "LoraStore",
    "Target",
    "grouped",
    "lora_modules",
    "target_modules",
]
