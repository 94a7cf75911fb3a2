"""Fixed requests that verify an artifact: together they use every graph and every input of it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from triton_diffusers.adapters.controlnet import network_for, usual_channels
from triton_diffusers.api.request import ControlChoice, Function, GenerationRequest, LoraChoice
from triton_diffusers.families.family import Family
from triton_diffusers.sampling.profiles import PROFILES

# The probe that timing uses.
TIMED = "plain"
LORA_FILE = "lora/probe.safetensors"
CONTROLNET_FILE = "controlnet/probe.safetensors"

_PROMPT = "a red apple on a blue background"
_CALIBRATION_PROMPTS = (
    "a green car",
    "a smiling face with sunglasses",
    "a house by the sea, evening light",
    "a cat, oil painting",
)
_RANK = 4
# Enough to change every image, not enough to spoil it.
_LORA_STRENGTH = 0.1  # relative to a layer's output, about
_RESIDUAL_STRENGTH = 0.3  # relative to the ControlNet's inner values


def probes(side: int, steps: int) -> Mapping[str, GenerationRequest]:
    """Return the verification requests by name, for a model whose images are ``side`` pixels wide and high.

    Text to image; two images of another shape by another sampler; image to image; a LoRA on every layer; then with
    the LoRA, the sampling profile that caches features between steps, and a ControlNet.
    """
    plain = GenerationRequest(
        task_id=TIMED,
        prompt=_PROMPT,
        width=side,
        height=side,
        steps=steps,
        guidance_scale=7.0,
        seed=1,
        embed_metadata=False,
    )
    with_lora = replace(plain, task_id="lora", loras=(LoraChoice(LORA_FILE, 1.0),))
    return {
        TIMED: plain,
        "wide": replace(
            plain,
            task_id="wide",
            prompt="a yellow flower",
            negative_prompt="dark",
            scheduler="DDIM",
            width=_eighths(side, 10),
            height=_eighths(side, 6),
            image_num=2,
            seed=2,
        ),
        "variation": replace(
            plain,
            task_id="variation",
            prompt="a sunset",
            function=Function.IMAGE_TO_IMAGE,
            image=_gradient(side),
            denoising_strength=0.6,
            seed=3,
        ),
        "lora": with_lora,
        "cached": replace(with_lora, task_id="cached", profile=PROFILES["cached"]),
        "control": replace(with_lora, task_id="control", controls=_control(side)),
    }


def calibration(side: int, steps: int) -> Mapping[str, GenerationRequest]:
    """Return requests that record the ranges of a model's values; none of them is a probe.

    Every other one has a ControlNet, since the ranges are averages.
    """
    return {
        f"calibration {number}": GenerationRequest(
            task_id=f"calibration-{number}",
            prompt=prompt,
            seed=100 + number,
            steps=steps,
            width=side,
            height=side,
            controls=_control(side) if number % 2 else (),
            embed_metadata=False,
        )
        for number, prompt in enumerate(_CALIBRATION_PROMPTS)
    }


def write_lora(model_dir: Path, targets: Mapping[str, tuple[int, ...]]) -> None:
    """Write a LoRA with fixed random weights on every linear layer and convolution, for the probe."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for path, shape in sorted(targets.items()):
        outs, *ins = shape
        if not ins:  # a normalization
            continue
        tensors[f"{path}.lora_A.weight"] = torch.randn(_RANK, *ins, generator=generator) / math.prod(ins) ** 0.5
        up = torch.randn(outs, _RANK, *[1] * (len(ins) - 1), generator=generator)
        tensors[f"{path}.lora_B.weight"] = up * _LORA_STRENGTH / _RANK**0.5
    (model_dir / LORA_FILE).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, model_dir / LORA_FILE)


def write_controlnet(model_dir: Path, family: Family) -> None:
    """Write a ControlNet with fixed random weights in half precision, for the probe."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    network = network_for(family.denoiser_config, {}, usual_channels(family.latents.pixels))
    for name, empty in network.state_dict().items():
        if empty.ndim > 1:
            is_last = name.startswith(("controlnet_down_blocks.", "controlnet_mid_block."))
            weight = torch.randn(empty.shape, generator=generator) / empty[0].numel() ** 0.5
            weight *= _RESIDUAL_STRENGTH if is_last else 1.0
        else:  # biases, and the scales of normalisations
            weight = torch.full(empty.shape, float(name.endswith("weight")))
        tensors[name] = weight.half()
    file = model_dir / CONTROLNET_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)


def _control(side: int) -> tuple[ControlChoice, ...]:
    return (ControlChoice(path=CONTROLNET_FILE, image=_gradient(side)),)


def _eighths(side: int, count: int) -> int:
    """Return ``count`` eighths of a side, as a multiple of 8 pixels."""
    return max(8, side * count // 64 * 8)


def _gradient(side: int) -> bytes:
    """Return a smooth image, as PNG."""
    ramp = np.linspace(0, 255, side, dtype=np.float32)
    across, down = np.meshgrid(ramp, ramp)
    pixels = np.stack([across, down, 255 - (across + down) / 2], axis=-1).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
