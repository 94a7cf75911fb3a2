"""Models of transformers in a folder of this machine: a module and its image processor, nothing else is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor

from triton_diffusers.preprocess.networks import Network

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
