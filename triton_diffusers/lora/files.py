"""Files below the model directory, and what is in them."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open

from triton_diffusers.errors import InvalidRequest, NotFound, shown
from triton_diffusers.lora.layer import LoraError

FIELD = "lora_path"
_LONGEST_PATH = 1024  # characters
_SUFFIXES = (".safetensors", ".bin", ".pt")
_IN_FOLDER = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


def find_file(root: Path, path: str) -> Path:
    """The real file that a request's path means; ``root`` is a real path, and nothing outside it is ever looked at.

    A folder means the weights in it that diffusers names by itself. Raises ``InvalidRequest`` and ``NotFound``.
    """
    parts = PurePosixPath(path).parts
    if not 1 <= len(path) <= _LONGEST_PATH:
        raise InvalidRequest(FIELD, path, f"a path has 1 to {_LONGEST_PATH} characters")
    if path.startswith("/") or ".." in parts:
        raise InvalidRequest(FIELD, path, "it must be relative to the model directory, without `..`")
    found = _inside(root, path, root / path)
    if stat.S_ISDIR(found.stat().st_mode):
        weights = [found / name for name in _IN_FOLDER if (found / name).exists()]
        if not weights:
            raise InvalidRequest(FIELD, path, f"a folder must hold {' or '.join(_IN_FOLDER)}")
        found = _inside(root, path, weights[0])
    if not stat.S_ISREG(found.stat().st_mode) or found.suffix not in _SUFFIXES:
        raise InvalidRequest(FIELD, path, f"it must be a file that ends in {', '.join(_SUFFIXES)}")
    return found


def _inside(root: Path, path: str, place: Path) -> Path:
    """A place with all links resolved. What a link leads to outside is answered like what does not exist."""
    try:
        real = place.resolve()
        if real.is_relative_to(root) and real.exists():
            return real
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, characters that no file has
        pass
    raise NotFound(f"{FIELD}: {shown(path)} is not in the model directory")


class _Weights(Mapping[str, torch.Tensor]):
    """The tensors of an open safetensors file, each read when it is asked for."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._keys = frozenset(opened.keys())

    def __getitem__(self, key: str) -> torch.Tensor:
        with _reading():
            tensor: torch.Tensor = self._opened.get_tensor(key)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)


@contextmanager
def opened(file: Path, most_bytes: int) -> Iterator[tuple[Mapping[str, torch.Tensor], Mapping[str, str]]]:
    """A file's tensors and its metadata. The tensors may be the file's own memory: copy what is to outlive this.

    Raises ``LoraError``.
    """
    if file.stat().st_size > most_bytes:
        raise LoraError(f"the file has more than {most_bytes // 2**20} MB")
    if file.suffix != ".safetensors":
        with _reading():
            tensors = _unpickled(file, most_bytes)
        yield tensors, {}
        return
    with _reading():
        weights: Any = safe_open(file, framework="pt")
    with weights:
        # By their names alone most files that are no LoRA are told, however large they are.
        yield _Weights(weights), weights.metadata() or {}


@contextmanager
def _reading() -> Iterator[None]:
    """Within this, whatever goes wrong is the file's fault."""
    try:
        yield
    except LoraError:
        raise
    except Exception as error:  # the libraries raise what they like about a broken file
        raise LoraError(f"the file cannot be read ({type(error).__name__})") from error


def _unpickled(file: Path, most_bytes: int) -> Mapping[str, torch.Tensor]:
    _check_archive(file, most_bytes)
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise LoraError("the file holds something else than named weights")
    return loaded


def _check_archive(file: Path, most_bytes: int) -> None:
    """Whether PyTorch's file is a zip archive (as since version 1.6) that unpacks to no more than its size promises."""
    if not zipfile.is_zipfile(file):
        raise LoraError("it is not in the format of torch.save since PyTorch 1.6; save it as .safetensors")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise LoraError("it is a compressed archive, which torch.save does not write")
    if sum(entry.file_size for entry in entries) > most_bytes:
        raise LoraError(f"it unpacks to more than {most_bytes // 2**20} MB")
