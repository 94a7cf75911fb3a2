"""The kinds of changes in LoRA files, each read from the parts of one layer.

Formulas and scales are those of LyCORIS and PEFT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from triton_diffusers.adapters.lora.adapter_config import AdapterConfig
from triton_diffusers.adapters.lora.changes import (
    DenseChange,
    DoraChange,
    GeneralizedChange,
    HadamardChange,
    KroneckerChange,
    ScaledChange,
)
from triton_diffusers.adapters.lora.layer import LayerChange, LoraError, LoraLayer, WeightChange
from triton_diffusers.adapters.lora.parts import LayerParts

# Parts that may stand beside those of any kind.
_BIAS, _UP_BIAS = "bias", "up_bias"
_MAGNITUDES = ("dora_scale", "magnitude")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of change: the parts by which it is recognised, and the function that reads it."""

    name: str
    parts: frozenset[str]
    read: Callable[[LayerParts, AdapterConfig], WeightChange]


def read_layer(parts: LayerParts, config: AdapterConfig) -> tuple[LoraLayer | None, LayerChange | None]:
    """Return a layer's low-rank change, and its other changes. Raises ``LoraError``."""
    kinds = [kind for kind in KINDS if not kind.parts.isdisjoint(parts.keys)]
    if len(kinds) > 1:
        raise LoraError(f"{parts.named()}: one layer cannot be {' and '.join(kind.name for kind in kinds)} at once")
    magnitude = next((part for part in _MAGNITUDES if part in parts), None)
    if len(parts.target) == 1 and (magnitude is not None or kinds not in ([], [_DENSE])):
        raise LoraError(f"{parts.named()}: for a normalization only differences are supported")
    change = kinds[0].read(parts, config) if kinds else None
    if change is None and (magnitude is not None or _BIAS not in parts):
        raise LoraError(f"it has no weights beside {parts.named()}")
    if change is not None and magnitude is not None:
        change = DoraChange(change, _magnitude(parts, magnitude))
    bias = _bias(parts, config)
    if isinstance(change, LoraLayer):
        return change, None if bias is None else LayerChange(bias=bias)
    return None, LayerChange(change, bias)


def _low_rank(parts: LayerParts, config: AdapterConfig) -> LoraLayer:
    """Read LoRA or LoCon, with or without a three-part kernel (Tucker)."""
    _require(parts, "down", "up")
    out, width, *kernel = parts.target
    rank = parts.shape("down")[:1]
    wanted = {"up": (out, *rank), "down": (*rank, width, *kernel)}
    if "mid" in parts:
        wanted = {"up": (out, *rank), "down": (*rank, width), "mid": (*rank, *rank, *kernel)}
    parts.check(wanted)
    parts.rank("down", 0)
    up = parts.take("up", out, *rank)
    if "mid" in parts:  # a 1×1 convolution followed by the kernel's own: equal to one convolution
        mid = parts.take("mid", *rank, *rank, *kernel)
        down = torch.einsum("or...,ri->oi...", mid, parts.take("down", *rank, width)).contiguous()
        parts.check_finite("mid", down)
    else:
        down = parts.take("down", *rank, width, *kernel)
    layer = LoraLayer(down, up * _low_rank_scale(parts, config))
    parts.check_finite("up", layer.up)
    return layer


def _low_rank_scale(parts: LayerParts, config: AdapterConfig) -> float:
    rank = parts.rank("down", 0)
    said = None if "alpha" in parts else config.scale(parts.path, rank)
    return _scale(parts, rank) if said is None else said


def _hadamard(parts: LayerParts, config: AdapterConfig) -> WeightChange:
    """Read LoHa, with or without three-part kernels (Tucker)."""
    out, width, *kernel = parts.target
    first, second = (_pair(parts, f"hada_w{n}_a", f"hada_w{n}_b", f"hada_t{n}", (out, width, *kernel)) for n in (1, 2))
    first = LoraLayer(first.down, first.up * _scale(parts, parts.rank("hada_w1_b", 0)))
    rank = first.rank * second.rank
    if not _is_low(rank, parts):
        return HadamardChange(first, second)
    # (Σ aᵢ bᵢ) ∘ (Σ cⱼ dⱼ) is the sum of all (aᵢ ∘ cⱼ) (bᵢ ∘ dⱼ).
    up = torch.einsum("oi,oj->oij", first.up, second.up).reshape(out, rank)
    down = torch.einsum("i...,j...->ij...", first.down, second.down).reshape(rank, width, *kernel)
    return LoraLayer(down, up)


def _kronecker(parts: LayerParts, config: AdapterConfig) -> WeightChange:
    """Read LoKr, whose factors may each be of full or of low rank."""
    out, width, *kernel = parts.target
    _require(parts, *(["lokr_w1"] if "lokr_w1" in parts else ["lokr_w1_a", "lokr_w1_b"]))
    whole = "lokr_w1" in parts
    sides = parts.shape("lokr_w1") if whole else (*parts.shape("lokr_w1_a")[:1], *parts.shape("lokr_w1_b")[1:])
    if len(sides) != 2 or not all(sides) or out % sides[0] or width % sides[1]:
        raise LoraError(f"{parts.named()}: factors of {sides} do not divide this model's layer of {parts.target}")
    inner = (out // sides[0], width // sides[1], *kernel)
    blocks = _factor(parts, "lokr_w1", sides)
    block = _factor(parts, "lokr_w2", inner)
    # An alpha applies only with a low-rank factor; LyCORIS takes the latter's rank if both are.
    of_rank = [part for part in ("lokr_w2_b", "lokr_w1_b") if part in parts]
    scale = _scale(parts, parts.rank(of_rank[0], 0)) if of_rank else 1.0
    blocks = LoraLayer(blocks.down, blocks.up * scale)
    rank = blocks.rank * block.rank
    if not _is_low(rank, parts):
        return KroneckerChange(blocks.product, block.product)
    # (A B) ⊗ (C D) = (A ⊗ C) (B ⊗ D)
    up = torch.kron(blocks.up, block.up)
    down = torch.kron(blocks.down.reshape(*blocks.down.shape, *[1] * len(kernel)), block.down)
    return LoraLayer(down, up)


def _factor(parts: LayerParts, name: str, shape: tuple[int, ...]) -> LoraLayer:
    """Return a factor as a low-rank layer, even if it is of full rank."""
    if name not in parts:
        return _pair(parts, f"{name}_a", f"{name}_b", name.replace("_w", "_t"), shape)
    if f"{name}_a" in parts or f"{name}_b" in parts:
        raise LoraError(f"{parts.named()}: a factor cannot be both whole and of low rank")
    out, width, *kernel = shape
    parts.check({name: shape})
    whole = parts.take(name, *shape)
    if out <= width * math.prod(kernel):
        return LoraLayer(whole, torch.eye(out))
    return LoraLayer(torch.eye(width * math.prod(kernel)).reshape(-1, *shape[1:]), whole.flatten(1))


def _pair(parts: LayerParts, left: str, right: str, core: str, shape: tuple[int, ...]) -> LoraLayer:
    """Return a product of parts (out, rank) and (rank, in, …) or, with a ``core``, (rank, out) and (rank, in)."""
    _require(parts, left, right)
    out, width, *kernel = shape
    if core not in parts:
        rank = parts.rank(right, 0)
        flat = (rank, width * math.prod(kernel))
        parts.check({left: (out, rank), right: (rank, width, *kernel) if len(parts.shape(right)) > 2 else flat})
        return LoraLayer(parts.take(right, rank, width, *kernel), parts.take(left, out, rank))
    first, second = parts.rank(left, 0), parts.rank(right, 0)
    parts.check({left: (first, out), right: (second, width), core: (first, second, *kernel)})
    down = torch.einsum("rs...,si->ri...", parts.take(core, first, second, *kernel), parts.take(right, second, width))
    return LoraLayer(down.contiguous(), parts.take(left, first, out).T.contiguous())


def _dense(parts: LayerParts, config: AdapterConfig) -> DenseChange:
    """Read a difference of full size; an alpha beside it has no meaning."""
    parts.check({"diff": parts.target})
    return DenseChange(parts.take("diff", *parts.target, dtype=None))


def _scaled(parts: LayerParts, config: AdapterConfig) -> ScaledChange:
    """Read IA3, for which LyCORIS writes the difference from a factor of 1."""
    _require(parts, "on_input", "ia3_weight")
    on_input = parts.number("on_input") != 0
    return ScaledChange(_vector(parts, "ia3_weight", 1 if on_input else 0))


def _generalized(parts: LayerParts, config: AdapterConfig) -> GeneralizedChange:
    """Read GLoRA; older files have its parts in the opposite order."""
    names = ("glora_a1", "glora_a2", "glora_b1", "glora_b2")
    _require(parts, *names)
    out, width, *kernel = parts.target
    inner, outer = ("glora_a1", "glora_a2"), ("glora_b1", "glora_b2")
    if parts.shape("glora_a1")[:1] != (width,) or parts.shape("glora_b1")[:1] != (out,):
        inner, outer = inner[::-1], outer[::-1]
    mixed = _pair(parts, *inner, "", (width, width))
    added = _pair(parts, *outer, "", (out, width, *kernel))
    scale = _scale(parts, added.rank)
    return GeneralizedChange(LoraLayer(mixed.down, mixed.up * scale), LoraLayer(added.down, added.up * scale))


def _bias(parts: LayerParts, config: AdapterConfig) -> torch.Tensor | None:
    """Return the change of a layer's bias: a difference, plus PEFT's bias of a LoRA's second layer."""
    size = parts.target[0]
    parts.check({part: (size,) for part in (_BIAS, _UP_BIAS) if part in parts})
    added = []
    if _BIAS in parts:
        added.append(parts.take(_BIAS, size))
    if _UP_BIAS in parts:
        added.append(parts.take(_UP_BIAS, size) * _low_rank_scale(parts, config))
    return torch.stack(added).sum(0) if added else None


def _magnitude(parts: LayerParts, part: str) -> torch.Tensor:
    """Return the norms that DoRA gives a weight: PEFT's belong to outputs, others are recognised by their shape."""
    shape = parts.shape(part)
    of_inputs = part == "dora_scale" and len(shape) > 1 and shape[0] == 1 and parts.target[0] != 1
    return _vector(parts, part, 1 if of_inputs else 0)


def _vector(parts: LayerParts, part: str, axis: int) -> torch.Tensor:
    """Return a part with a number for each output (axis 0) or input (axis 1), broadcastable to the weight."""
    size = parts.target[axis]
    if sorted(parts.shape(part))[-1:] != [size] or math.prod(parts.shape(part)) != size:
        kind = "input" if axis else "output"
        raise LoraError(
            f"{parts.named(part)}: {parts.shape(part)} does not have a number for each {kind} of this model's layer"
            f" of {parts.target}"
        )
    ones = [1] * len(parts.target)
    ones[axis] = size
    return parts.take(part, *ones)


def _scale(parts: LayerParts, rank: int) -> float:
    """Return alpha / rank, or 1 if the file has no alpha."""
    return parts.number("alpha") / rank if "alpha" in parts else 1.0


def _is_low(rank: int, parts: LayerParts) -> bool:
    """Return True if two factors of this rank have no more numbers than the weight."""
    return rank * (parts.target[0] + parts.fan_in) <= parts.target[0] * parts.fan_in


def _require(parts: LayerParts, *needed: str) -> None:
    if missing := [part for part in needed if part not in parts]:
        raise LoraError(f"it has no {missing[0]} weight beside {parts.named()}")


_LOHA = [f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")]
_LOKR = [f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]
_GLORA = ("a1", "a2", "b1", "b2")
_DENSE = Kind("a full difference", frozenset({"diff"}), _dense)

KINDS = (
    Kind("LoRA", frozenset({"down", "up", "mid", _UP_BIAS}), _low_rank),
    Kind("LoHa", frozenset(_LOHA), _hadamard),
    Kind("LoKr", frozenset(_LOKR), _kronecker),
    _DENSE,
    Kind("IA3", frozenset({"ia3_weight", "on_input"}), _scaled),
    Kind("GLoRA", frozenset(f"glora_{part}" for part in _GLORA), _generalized),
)
PARTS: Mapping[str, str] = {
    "lora_down.weight": "down",
    "lora_A.weight": "down",
    "down.weight": "down",
    "lora_up.weight": "up",
    "lora_B.weight": "up",
    "up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_up.bias": _UP_BIAS,
    "lora_B.bias": _UP_BIAS,
    "alpha": "alpha",
    **{part: part for part in (*_LOHA, *_LOKR)},
    "diff": "diff",
    "diff_b": _BIAS,
    "w_norm": "diff",
    "b_norm": _BIAS,
    "weight": "ia3_weight",
    "on_input": "on_input",
    **{f"{part}.weight": f"glora_{part}" for part in _GLORA},
    "dora_scale": "dora_scale",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
"""The parts of a layer by their suffixes in files."""
