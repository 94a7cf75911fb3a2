"""Places of adapters in a model directory, known without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

LORA_FOLDERS = ("lora", "loras", "lycoris")
"""Folders of a model directory that are searched for LoRAs, in any case."""
LORA_SUFFIXES = (".safetensors", ".bin", ".pt")
LORA_IN_FOLDER = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
"""Weight files that make a folder a LoRA, the best first."""

CONTROLNET = "controlnet"
"""Folder of the model directory's own ControlNet."""
CONTROLNET_SUFFIXES = (".safetensors", ".bin", ".pth", ".ckpt")
CONTROLNET_IN_FOLDER = tuple(
    f"diffusion_pytorch_model{variant}.{suffix}" for suffix in ("safetensors", "bin") for variant in ("", ".fp16")
)
_CONTROLNETS = "controlnets"

EMBEDDINGS = "embeddings"
EMBEDDING_SUFFIXES = (".safetensors", ".pt", ".bin")


def lora_folders(model_dir: Path) -> list[str]:
    """Return the folders of a model directory that hold LoRAs."""
    try:
        with os.scandir(model_dir) as entries:
            return [entry.path for entry in entries if entry.name.casefold() in LORA_FOLDERS and entry.is_dir()]
    except OSError:
        return []


def loras_among(names: Sequence[str], place: PurePosixPath, *, is_top: bool) -> list[str]:
    """Return the paths of the LoRAs among the files of a folder at ``place``; ``is_top``: one of ``lora_folders``."""
    weights = [name for name in LORA_IN_FOLDER if name in names]
    found = [str(place / weights[0] if is_top else place)] if weights else []
    return found + [
        str(place / name) for name in sorted(names) if name.endswith(LORA_SUFFIXES) and name not in LORA_IN_FOLDER
    ]


def loras(model_dir: Path) -> list[str]:
    """Return the paths of a model directory's LoRAs, relative to it."""
    return [
        path
        for top in lora_folders(model_dir)
        for folder, _, names in os.walk(top)
        for path in loras_among(
            names, PurePosixPath(Path(folder).relative_to(model_dir).as_posix()), is_top=folder == top
        )
    ]


def controlnets(model_dir: Path) -> list[str]:
    """Return the paths of a model directory's ControlNets, relative to it; its own one is ``controlnet``."""
    beside = model_dir / _CONTROLNETS
    candidates = [model_dir / CONTROLNET, *(sorted(beside.iterdir()) if beside.is_dir() else ())]
    return [path.relative_to(model_dir).as_posix() for path in candidates if _is_controlnet(path)]


def embeddings(model_dir: Path) -> list[str]:
    """Return the words of a model directory's embeddings."""
    folder = model_dir / EMBEDDINGS
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.iterdir() if path.suffix in EMBEDDING_SUFFIXES)


def _is_controlnet(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in CONTROLNET_IN_FOLDER)
    return path.suffix in CONTROLNET_SUFFIXES and path.is_file()
