"""The networks of the preprocessors, loaded on demand and cached."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor

from triton_diffusers.preprocess.registry import Weights
from triton_diffusers.util.cache import LruCache
from triton_diffusers.util.files import FileIdentity, file_identity
from triton_diffusers.util.pickles import read_pickle

log = logging.getLogger(__name__)


class MissingWeights(Exception):
    """A file is missing in the folder of preprocessors; ``path`` is relative to it, ``repository`` is its source."""

    def __init__(self, path: str, repository: str) -> None:
        super().__init__(f"{path} of {repository} is missing")
        self.path, self.repository = path, repository


class UnreadableWeights(Exception):
    """A network's files cannot be loaded; ``folder`` is relative to that of the preprocessors."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"{folder} cannot be read")
        self.folder = folder


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, and its input processor if its files include one."""

    module: Any
    processor: Any = None

    @property
    def nbytes(self) -> int:
        """Return the memory of parameters and buffers."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.nbytes for tensor in tensors)


class Networks:
    """Loads networks from one folder to one device, in float32, and caches up to ``max_bytes``, or at least the latest.

    A network is loaded again when its files have changed.
    """

    def __init__(self, root: Path, device: torch.device, max_bytes: int) -> None:
        self._root = root
        self.device = device
        self._cache: LruCache[tuple[FileIdentity, ...], Network] = LruCache(max_bytes)

    def get(self, weights: Weights, load: Callable[[Path], Network]) -> Network:
        """Return the network that ``load`` makes of the folder of ``weights``.

        Raises: MissingWeights, UnreadableWeights: the log has the whole path and the reason.
        """
        if missing := weights.missing(self._root):
            log.warning("%s not found; get it from %s", self._root / missing[0], weights.repository)
            raise MissingWeights(missing[0], weights.repository)
        files = weights.found(self._root)
        # Other networks in the folder have other files; a replaced file has another time.
        key = tuple(map(file_identity, files))
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        folder = self._root / weights.folder
        try:
            network = load(folder)
        except Exception as error:  # libraries may raise anything about a broken file
            log.warning("%s: %s cannot be loaded", folder, ", ".join(file.name for file in files), exc_info=True)
            raise UnreadableWeights(weights.folder) from error
        network.module.to(device=self.device, dtype=torch.float32).eval().requires_grad_(False)
        self._cache.put(key, network)
        return network


def with_weights(module: torch.nn.Module, file: Path) -> Network:
    """Return ``module`` with the tensors of a ``torch.save`` file, which must match exactly."""
    module.load_state_dict(read_pickle(file))
    return Network(module)


# Missing in published files and unused: the first fusion of a DPT has no residual to add, and DINOv2's mask is for
# training.
_UNUSED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\.|backbone\.embeddings\.mask_token$")


def load_pretrained(auto_class: Any, folder: Path) -> Network:
    """Load the folder's model with a transformers class. Raises errors of transformers, and ``ValueError``."""
    module, report = auto_class.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=(folder / "model.safetensors").is_file(),
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # Missing tensors would be random, and so would the control images.
    if missing := sorted(key for key in map(str, report["missing_keys"]) if not _UNUSED.match(key)):
        raise ValueError(f"it has no tensor {missing[0]} ({len(missing)} missing)")
    if mismatched := list(report["mismatched_keys"]):
        raise ValueError(f"it does not match its config.json: {mismatched[0]}")
    # PIL gives equal pixels everywhere, with or without torchvision.
    processor = AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True, trust_remote_code=False
    )
    return Network(module, processor)
