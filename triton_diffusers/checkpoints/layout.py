"""What the base model of a model directory is: a folder in the diffusers layout, or one file. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.checkpoints.errors import LoadError

BASE_MODEL = "base_model"
INDEX = "model_index.json"
FILE_SUFFIXES = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class BaseModel:
    """``path`` is a folder with a ``model_index.json``, or one ``.safetensors`` or ``.ckpt`` file."""

    path: Path

    @property
    def is_file(self) -> bool:
        """Whether it is one file, which has to be converted."""
        return self.path.suffix in FILE_SUFFIXES and self.path.is_file()


def has_base_model(model_dir: Path) -> bool:
    """Whether there is anything at all that may be a base model."""
    return (model_dir / BASE_MODEL).is_dir() or any(
        (model_dir / f"{BASE_MODEL}{suffix}").is_file() for suffix in FILE_SUFFIXES
    )


def find_base_model(model_dir: Path) -> BaseModel:
    """The base model of ``model_dir``: the folder ``base_model/``, the one file in it, or ``base_model.<suffix>``.

    Raises ``LoadError`` if there is none, or more than one.
    """
    folder = model_dir / BASE_MODEL
    files = [path for suffix in FILE_SUFFIXES if (path := model_dir / f"{BASE_MODEL}{suffix}").is_file()]
    if (folder / INDEX).is_file():
        found = [folder, *files]  # single files in a diffusers folder say the same once more
    else:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [*(path for path in inside if path.suffix in FILE_SUFFIXES and path.is_file()), *files]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(model_dir)) for path in found)
        raise LoadError(f"{model_dir} has more than one base model: {names}; leave one of them")
    if not found:
        if folder.is_dir():
            raise LoadError(f"{folder} is not a model: it has neither a {INDEX} nor a .safetensors or .ckpt file")
        raise LoadError(
            f"{model_dir} is not a model directory: it has neither {BASE_MODEL}/ nor {BASE_MODEL}.safetensors"
        )
    return BaseModel(found[0])
