"""LoRA files as the common tools write them, with random weights, for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from triton_diffusers.lora.ldm import ldm_names

Weights = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # module path → (down, up)
Tensors = dict[str, torch.Tensor]

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", "_proj")


def is_attention(path: str) -> bool:
    """Whether a layer is a projection of attention, as in the simplest LoRAs."""
    return ("attn" in path and path.endswith(ATTENTION)) or "self_attn" in path


def is_linear(path: str) -> bool:
    """Whether a layer is one that sd-scripts trains by default: linear, or the 1×1 convolutions around attention."""
    return is_attention(path) or ".ff." in path or ".mlp." in path or path.endswith(("proj_in", "proj_out"))


def random_weights(
    targets: Mapping[str, tuple[int, ...]], rank: int, seed: int, chosen: Callable[[str], bool] = lambda path: True
) -> Weights:
    """Low-rank weights that change a picture visibly and do not spoil it."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for path, (out, *inner) in targets.items():
        if chosen(path):
            fan_in = torch.Size(inner).numel()
            down = torch.randn(rank, *inner, generator=generator) / fan_in**0.5
            weights[path] = (down, torch.randn(out, rank, generator=generator) * 0.3 / rank**0.5)
    return weights


def kohya(weights: Weights, alpha: float | None = None, te_prefix: str = "lora_te") -> Tensors:
    """sd-scripts and LoCon."""
    tensors = {}
    for path, (down, up) in weights.items():
        model, _, inner = path.partition(".")
        prefix = "lora_unet"
        if model == "text_encoder":
            prefix, inner = te_prefix, _with_text_model(inner)
        tensors |= _kohya_layer(f"{prefix}_{inner.replace('.', '_')}", down, up, alpha)
    return tensors


def kohya_ldm(weights: Weights, alpha: float | None = None) -> Tensors:
    """sd-scripts on a UNet with the original numbers of blocks. For weights of all the UNet's layers."""
    names = ldm_names([path.removeprefix("unet.") for path in weights])
    tensors = {}
    for path, (down, up) in weights.items():
        name = names[path.removeprefix("unet.")].replace(".", "_")
        tensors |= _kohya_layer(f"lora_unet_{name}", down, up, alpha)
    return tensors


def peft(weights: Weights, prefix: str = "") -> Tensors:
    """What diffusers writes today."""
    tensors = {}
    for path, (down, up) in weights.items():
        model, _, inner = path.partition(".")
        path = f"{model}.{_with_text_model(inner)}" if model == "text_encoder" else path
        tensors[f"{prefix}{path}.lora_A.weight"] = down.clone()
        tensors[f"{prefix}{path}.lora_B.weight"] = _kernel(down, up)
    return tensors


def older_diffusers(weights: Weights) -> Tensors:
    """What diffusers wrote with its own attention processors. For weights of attention alone."""
    renamed = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    tensors = {}
    for path, (down, up) in weights.items():
        model, _, inner = path.partition(".")
        layer, _, name = inner.removesuffix(".0").rpartition(".")
        if model == "unet":
            stem = f"unet.{layer}.processor.{name}_lora"
        else:
            stem = f"text_encoder.{_with_text_model(layer)}.{renamed[name]}_lora"
        tensors |= {f"{stem}.down.weight": down.clone(), f"{stem}.up.weight": up.clone()}
    return tensors


def save(file: Path, tensors: Tensors, metadata: Mapping[str, object] | None = None) -> Path:
    """Write safetensors; ``metadata`` is an adapter's config as diffusers keeps it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None)
    return file


def _kohya_layer(name: str, down: torch.Tensor, up: torch.Tensor, alpha: float | None) -> Tensors:
    tensors = {f"{name}.lora_down.weight": down.clone(), f"{name}.lora_up.weight": _kernel(down, up)}
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def _kernel(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """A convolution's ``up`` is a 1×1 convolution."""
    return up.reshape(*up.shape, *[1] * (down.dim() - 2)).clone()


def _with_text_model(inner: str) -> str:
    return f"text_model.{inner.removeprefix('text_model.')}"
