"""Find the base model of a model directory, and its autoencoder. Needs no PyTorch.

A model directory is a folder with ``base_model/`` (or ``base_model.<suffix>``), a folder in the diffusers layout, or
one checkpoint file, whose folder then holds the LoRAs and other files that requests name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.checkpoints.errors import LoadError

BASE_MODEL = "base_model"
INDEX = "model_index.json"
FILE_SUFFIXES = (".safetensors", ".ckpt")
VAE_FOLDER = "vae"
VAE_HINT = (
    "put an autoencoder beside the checkpoint (<name>.vae.safetensors, <name>.vae.pt or vae/), "
    "or name one with TRITON_DIFFUSERS_VAE"
)
_VAE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")
_CONFIG = "config.json"


@dataclass(frozen=True)
class BaseModel:
    """The base model: ``path`` is a folder with a ``model_index.json``, or a ``.safetensors`` or ``.ckpt`` file.

    ``vae`` is the autoencoder that replaces the model's own, if any: a folder with a ``config.json``, or one file.
    """

    path: Path
    vae: Path | None = None

    @property
    def is_file(self) -> bool:
        """Return True if it is one file, which has to be converted."""
        return self.path.suffix in FILE_SUFFIXES and self.path.is_file()


def is_vae_file(name: str) -> bool:
    """Return True for names such as ``model.vae.pt``: the autoencoder of the checkpoint ``model``."""
    return any(name.endswith(f".{VAE_FOLDER}{suffix}") for suffix in _VAE_SUFFIXES)


def is_checkpoint(path: Path) -> bool:
    """Return True if ``path`` is one file that may be a checkpoint, by its name."""
    return path.suffix in FILE_SUFFIXES and not is_vae_file(path.name) and path.is_file()


def has_base_model(model_dir: Path) -> bool:
    """Return True if ``model_dir`` contains a candidate for a base model."""
    return (
        is_checkpoint(model_dir)
        or (model_dir / INDEX).is_file()
        or (model_dir / BASE_MODEL).is_dir()
        or any((model_dir / f"{BASE_MODEL}{suffix}").is_file() for suffix in FILE_SUFFIXES)
    )


def find_base_model(model_dir: Path, vae: str = "") -> BaseModel:
    """Return the base model of ``model_dir``, with the autoencoder that replaces its own.

    ``vae`` is the setting: a path, absolute or relative to the model directory. Without it, the autoencoder is
    ``<name>.vae.<suffix>`` beside a checkpoint ``<name>.<suffix>``, or ``vae/`` beside it or in the model directory.

    Raises ``LoadError`` if there is no base model, or more than one, and for an autoencoder that is not found.
    """
    path = _find_path(model_dir)
    folder = model_dir.parent if model_dir.is_file() else model_dir
    if vae:
        return BaseModel(path, _chosen_vae(folder / Path(vae).expanduser()))
    beside = [path.with_suffix(f".{VAE_FOLDER}{suffix}") for suffix in _VAE_SUFFIXES] if path.is_file() else []
    if found := next((file for file in beside if file.is_file()), None):
        return BaseModel(path, found)
    for place in dict.fromkeys((path.parent / VAE_FOLDER, folder / VAE_FOLDER)):
        if place.is_dir() and place.parent != path:  # a diffusers folder's own
            return BaseModel(path, _chosen_vae(place))
    return BaseModel(path)


def _chosen_vae(place: Path) -> Path:
    """Return a folder in the diffusers layout, or the one file of weights that is meant."""
    if (place.is_dir() and (place / _CONFIG).is_file()) or (place.is_file() and place.suffix in _VAE_SUFFIXES):
        return place
    if not place.is_dir():
        raise LoadError(f"{place} is not an autoencoder: expected a folder, or a {', '.join(_VAE_SUFFIXES)} file")
    files = sorted(path for path in place.iterdir() if path.suffix in _VAE_SUFFIXES and path.is_file())
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise LoadError(
            f"{place} is invalid: expected a {_CONFIG}, or one file of weights, got {names}; name an autoencoder with "
            "TRITON_DIFFUSERS_VAE"
        )
    return files[0]


def _find_path(model_dir: Path) -> Path:
    if is_checkpoint(model_dir):
        return model_dir
    folder = model_dir / BASE_MODEL
    files = [path for suffix in FILE_SUFFIXES if (path := model_dir / f"{BASE_MODEL}{suffix}").is_file()]
    if (folder / INDEX).is_file():
        found = [folder, *files]  # single files in a diffusers folder are copies of it
    else:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [*(path for path in inside if is_checkpoint(path)), *files]
    if not found and not folder.is_dir() and (model_dir / INDEX).is_file():
        found = [model_dir]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(model_dir)) for path in found)
        raise LoadError(f"{model_dir} has more than one base model: {names}; leave one of them")
    if not found:
        if folder.is_dir():
            raise LoadError(f"{folder} is not a model: it has neither a {INDEX} nor a .safetensors or .ckpt file")
        raise LoadError(
            f"{model_dir} is not a model directory: it has neither {BASE_MODEL}/ nor {BASE_MODEL}.safetensors, "
            f"nor is it a diffusers folder ({INDEX}) or one checkpoint file"
        )
    return found[0]


PREFERRED = {"float16": ("fp16", None), "bfloat16": ("bf16", None)}  # by precision; otherwise plain files come first
_OTHERWISE = (None, "fp16", "bf16")
_NAME = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)"
    r"(?:\.(?P<before>[a-z]\w*))?(?:-\d{5}-of-\d{5})?(?:\.(?P<variant>(?!safetensors|bin)\w+))?"
    r"\.(?P<suffix>safetensors|bin)(?:\.index(?:\.(?P<index>\w+))?\.json)?"
)


@dataclass(frozen=True)
class WeightFiles:
    """The files to load: those of one variant (None for plain files), as safetensors or as pickles."""

    variant: str | None
    is_safetensors: bool

    def has(self, name: str) -> bool:
        """Return True if the file is one of them."""
        return files_of(name) == self


def files_of(name: str) -> WeightFiles | None:
    """Return the kind of a file by its name; None if it holds no weights of PyTorch."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return WeightFiles(match["index"] or match["variant"] or match["before"], match["suffix"] == "safetensors")


def choose(names: Iterable[str], dtype: str) -> WeightFiles | None:
    """Return the best kind of files: safetensors before pickles, then the variant nearest to ``dtype``."""
    found = {files for name in names if (files := files_of(name))}
    for is_safetensors in (True, False):
        variants = {files.variant for files in found if files.is_safetensors is is_safetensors}
        for variant in (*PREFERRED.get(dtype, ()), *_OTHERWISE, *sorted(name for name in variants if name)):
            if variant in variants:
                return WeightFiles(variant, is_safetensors)
    return None
