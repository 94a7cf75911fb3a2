"""The common form of ControlNet files after reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from triton_diffusers.util.files import FileIdentity

Identity = tuple[FileIdentity, ...]
"""Path, size and modification time of a ControlNet's files: unique for each ControlNet and version."""


@dataclass(frozen=True, slots=True, eq=False)
class ControlNetWeights:
    """The weights of a ControlNet that fits the base model, for ``diffusers.ControlNetModel``.

    ``config`` is complete. ``tensors`` are all tensors of the network, by its own names and in the precision of the
    file; their memory may be the file's, so copy them to keep them.
    """

    identity: Identity
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Return the memory of all tensors, as they are in the file."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
