"""The tensors of a checkpoint in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.util.broken_download import download_fault
from triton_diffusers.util.pickle_objects import HarmfulPickle, PickleError
from triton_diffusers.util.pickles import read_pickle

_MAX_NESTING = 4  # containers around the tensors

_KEPT_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Weights:
    """Tensors by their name in the file, mapped from the disk.

    ``global_step`` is the number of training steps, if the file has it; ``metadata`` is that of a safetensors file.
    """

    tensors: Mapping[str, torch.Tensor]
    global_step: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or the tensors of a ``.ckpt``.

    A ``.ckpt`` is a pickle, which can run any code when it is read. It is read as data only; callbacks, optimizers and
    other leftovers of trainers are ignored.

    Raises: LoadError: the file cannot be read, or holds no named tensors.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    if fault := download_fault(path):
        raise LoadError(f"{path} cannot be read: {fault}")
    metadata: Mapping[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
        else:
            content = read_pickle(path)
    except HarmfulPickle as error:
        raise LoadError(f"{path} is refused: it is a pickle that holds more than tensors: {error}") from error
    except PickleError as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # libraries may raise anything about a broken file
        raise LoadError(f"{path} cannot be read: {one_line(error)}") from error
    step = None
    for _ in range(_MAX_NESTING):
        if not isinstance(content, dict) or "state_dict" not in content:
            break
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
