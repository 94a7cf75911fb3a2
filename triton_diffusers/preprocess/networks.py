"""The networks of the preprocessors: loaded when they are asked for, and kept while there is room."""

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
from triton_diffusers.util.pickles import read_pickle

log = logging.getLogger(__name__)


class MissingWeights(Exception):
    """A file is not in the folder of preprocessors; ``path`` is relative to it, ``repository`` is where to get it."""

    def __init__(self, path: str, repository: str) -> None:
        super().__init__(f"{path} of {repository} is missing")
        self.path, self.repository = path, repository


class UnreadableWeights(Exception):
    """Files are there and no network comes of them; ``folder`` is relative to that of the preprocessors."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"{folder} cannot be read")
        self.folder = folder


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, and what prepares its input where that is part of its files."""

    module: Any
    processor: Any = None

    @property
    def nbytes(self) -> int:
        """Memory of parameters and buffers."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.nbytes for tensor in tensors)


class Networks:
    """Loads from one folder to one device, in float32; holds networks of at most ``most_bytes``, and always the latest.

    A network is loaded anew when its files have changed.
    """

    def __init__(self, root: Path, device: torch.device, most_bytes: int) -> None:
        self._root = root
        self.device = device
        self._cache = LruCache(most_bytes)

    def get(self, weights: Weights, load: Callable[[Path], Network]) -> Network:
        """What ``load`` makes of the folder that holds ``weights``.

        Raises ``MissingWeights`` and ``UnreadableWeights``; the log has the whole path and the reason.
        """
        if missing := weights.missing(self._root):
            log.warning("%s is not there; it is in %s", self._root / missing[0], weights.repository)
            raise MissingWeights(missing[0], weights.repository)
        files = weights.found(self._root)
        # A second network of one folder has other files; a file that was replaced has another time.
        key = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        kept: Network | None = self._cache.get(key)
        if kept is not None:
            return kept
        folder = self._root / weights.folder
        try:
            network = load(folder)
        except Exception as error:  # the libraries raise what they like about a broken file
            log.warning("%s: %s cannot be loaded", folder, ", ".join(file.name for file in files), exc_info=True)
            raise UnreadableWeights(weights.folder) from error
        network.module.to(device=self.device, dtype=torch.float32).eval().requires_grad_(False)
        self._cache.put(key, network)
        return network


def with_weights(module: torch.nn.Module, file: Path) -> Network:
    """``module`` with the tensors of a file that ``torch.save`` has written; it must have exactly these."""
    module.load_state_dict(read_pickle(file))
    return Network(module)


# Published files lack these, and nobody uses them: the first fusion of a DPT has no residual to add, and DINOv2's mask
# is for training.
_UNUSED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\.|backbone\.embeddings\.mask_token$")


def load_pretrained(auto_class: Any, folder: Path) -> Network:
    """The folder's model by one of transformers' classes. Raises whatever transformers raises, and ``ValueError``."""
    module, report = auto_class.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=(folder / "model.safetensors").is_file(),
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # Without this they would be random, and so would the control pictures.
    if missing := sorted(key for key in map(str, report["missing_keys"]) if not _UNUSED.match(key)):
        raise ValueError(f"it has no tensor {missing[0]} ({len(missing)} missing)")
    if mismatched := list(report["mismatched_keys"]):
        raise ValueError(f"it does not fit its config.json: {mismatched[0]}")
    # The same pixels wherever it runs, whether torchvision is there or not.
    processor = AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True, trust_remote_code=False
    )
    return Network(module, processor)
