"""The tensors of a checkpoint in one file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.checkpoints.errors import LoadError, one_line

_KEPT_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """Tensors by their name in the file, mapped from the disk.

    ``global_step`` is how many steps were trained, if the file says it; ``metadata`` is that of a safetensors file.
    """

    tensors: Mapping[str, torch.Tensor]
    global_step: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a ``.ckpt`` that holds nothing but tensors and plain values.

    A ``.ckpt`` is a pickle, which can run any code when it is read: one that needs more than PyTorch's restricted
    reader allows is refused. Raises ``LoadError``.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    metadata: Mapping[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):  # what PyTorch's restricted reader stumbled over
            raise LoadError(f"{path} is refused: it is a pickle that holds more than tensors: {found[1]}") from error
        if isinstance(error, pickle.UnpicklingError):  # its message is a page about how to switch the restriction off
            raise LoadError(f"{path} cannot be read: it is no checkpoint of tensors") from error
        raise LoadError(f"{path} cannot be read: {one_line(error)}") from error
    step = None
    while isinstance(content, dict) and "state_dict" in content:
        step = content.get("global_step", step)
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise LoadError(f"{path} is not a checkpoint: it holds a {type(content).__name__}, not named tensors")
    step = content.get("global_step", step)
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}
    return Weights(tensors, int(step) if isinstance(step, int | torch.Tensor) else None, metadata)


def in_kept_precision(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in a precision that every engine can load: 8-bit floats become float16, others float32."""
    if tensor.dtype not in _KEPT_PRECISIONS:
        tensor = tensor.to(torch.float16 if tensor.element_size() == 1 else torch.float32)
    return tensor.contiguous()


def _is_zip(path: Path) -> bool:
    """Whether it is PyTorch's format since 1.6, which can be mapped instead of read."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
