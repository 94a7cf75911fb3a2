"""LoRA files as the common tools write them, with random weights, for the tests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from triton_diffusers.adapters.lora.ldm import ldm_names
from triton_diffusers.engines.graphs import LoraLayout

Weights = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # module path → (down, up)
Tensors = dict[str, torch.Tensor]

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", "_proj")


def is_attention(path: str) -> bool:
    """Return True if a layer is a projection of attention, as in the simplest LoRAs."""
    return ("attn" in path and path.endswith(ATTENTION)) or "self_attn" in path


def is_linear(path: str) -> bool:
    """Return True if sd-scripts trains a layer by default: linear, or a 1×1 convolution around attention."""
    return is_attention(path) or ".ff." in path or ".mlp." in path or path.endswith(("proj_in", "proj_out"))


def random_weights(
    targets: Mapping[str, tuple[int, ...]], rank: int, seed: int, chosen: Callable[[str], bool] = lambda path: True
) -> Weights:
    """Low-rank weights that change an image visibly and do not spoil it."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for path, (out, *inner) in targets.items():
        if inner and chosen(path):
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
        if model != "unet":
            prefix = te_prefix if model == "text_encoder" else "lora_te2"
            inner = _with_text_model(inner)
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
    """Return a LoRA in the layout that diffusers writes today."""
    tensors = {}
    for path, (down, up) in weights.items():
        model, _, inner = path.partition(".")
        path = f"{model}.{_with_text_model(inner)}" if model != "unet" else path
        tensors[f"{prefix}{path}.lora_A.weight"] = down.clone()
        tensors[f"{prefix}{path}.lora_B.weight"] = _kernel(down, up)
    return tensors


def older_diffusers(weights: Weights) -> Tensors:
    """Return a LoRA in the layout of diffusers' former attention processors, which hold attention alone."""
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


def lycoris(models: Mapping[str, nn.Module], seed: int) -> tuple[Tensors, Tensors]:
    """Return a file of LyCORIS with each linear, convolution and normalization layer of the next kind in turn.

    With it come the weights that the layers have then, by module path.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    merged: Tensors = {}
    kinds = itertools.cycle((_loha, _lokr, _dora_of_inputs, _dora_of_outputs, _full))
    for model, module in models.items():
        for inner, layer in module.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(layer, nn.Embedding) or weight is None:
                continue
            name = f"lora_te_{_with_text_model(inner)}" if model == "text_encoder" else f"lora_unet_{inner}"
            if weight.dim() == 1:
                change = torch.randn(weight.shape, generator=generator) * 0.05
                parts, new = {"w_norm": change, "b_norm": torch.zeros_like(change)}, weight.detach() + change
            else:
                parts, new = next(kinds)(weight.detach(), generator)
            tensors |= {f"{name.replace('.', '_')}.{part}": tensor.contiguous() for part, tensor in parts.items()}
            merged[f"{model}.{inner}"] = new
    return tensors, merged


_Change = tuple[Tensors, torch.Tensor]
_SIZE = 0.15  # of a change, beside a weight


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def _sized(change: torch.Tensor, weight: torch.Tensor) -> float:
    return float(_SIZE * weight.norm() / change.norm())


def _loha(weight: torch.Tensor, generator: torch.Generator) -> _Change:
    flat = weight.flatten(1)
    a, b, c, d = (_random(generator, *shape) for shape in ((len(flat), 3), (3, flat.shape[1])) * 2)
    product = (a @ b) * (c @ d)
    size = _sized(product, weight)
    parts = {"hada_w1_a": a * size, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(6.0)}
    return parts, weight + (2 * size * product).reshape(weight.shape)


def _lokr(weight: torch.Tensor, generator: torch.Generator) -> _Change:
    out, width, *kernel = weight.shape
    blocks, block = _random(generator, 2, 2), _random(generator, out // 2, width // 2, *kernel)
    product = torch.kron(blocks.reshape(2, 2, *[1] * len(kernel)), block)
    size = _sized(product, weight)
    return {"lokr_w1": blocks * size, "lokr_w2": block, "alpha": torch.tensor(7.0)}, weight + size * product


def _dora(weight: torch.Tensor, generator: torch.Generator, kept: int) -> _Change:
    out, width, *kernel = weight.shape
    down, up = _random(generator, 4, width, *kernel), _random(generator, out, 4)
    product = torch.tensordot(up, down, 1)
    size = _sized(product, weight)
    changed = weight + size * product
    others = [axis for axis in range(weight.dim()) if axis != kept]
    magnitude = changed.pow(2).sum(others, keepdim=True).sqrt()
    magnitude = magnitude * (0.9 + 0.2 * torch.rand(magnitude.shape, generator=generator))
    parts = {
        "lora_down.weight": down,
        "lora_up.weight": (up * size).reshape(out, 4, *[1] * len(kernel)),
        "alpha": torch.tensor(4.0),
        "dora_scale": magnitude,
    }
    return parts, changed / changed.pow(2).sum(others, keepdim=True).sqrt() * magnitude


def _dora_of_inputs(weight: torch.Tensor, generator: torch.Generator) -> _Change:
    return _dora(weight, generator, 1)


def _dora_of_outputs(weight: torch.Tensor, generator: torch.Generator) -> _Change:
    return _dora(weight, generator, 0)


def _full(weight: torch.Tensor, generator: torch.Generator) -> _Change:
    difference = _random(generator, *weight.shape)
    difference *= _sized(difference, weight)
    return {"diff": difference, "diff_b": torch.zeros(len(weight))}, weight + difference


def random_inputs(layouts: Sequence[LoraLayout], groups: int, rank: int) -> list[torch.Tensor]:
    """Random LoRAs as the inputs of a graph, those of convolutions of another rank."""
    generator = torch.Generator().manual_seed(groups)
    shapes = []
    for index, layout in enumerate(layouts):
        own = rank + index if rank else 0
        shapes += [(groups, own, sum(layout.ins)), (groups, sum(layout.outs), own)]
    return [_random(generator, *shape) * 0.1 for shape in shapes]


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
    """Return a convolution's ``up`` is a 1×1 convolution."""
    return up.reshape(*up.shape, *[1] * (down.dim() - 2)).clone()


def _with_text_model(inner: str) -> str:
    return f"text_model.{inner.removeprefix('text_model.')}"
