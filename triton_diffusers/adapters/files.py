"""Weight files that requests name, below the model directory, and their content."""

from __future__ import annotations

import os
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open

from triton_diffusers.errors import InvalidRequest, NotFound, shown
from triton_diffusers.util.broken_download import download_fault
from triton_diffusers.util.pickle_objects import HarmfulPickle, PickleError
from triton_diffusers.util.pickles import read_pickle

_MAX_PATH_CHARACTERS = 1024
_MAX_NAMED_KEYS = 3
_MAX_KEY_CHARACTERS = 120


class WeightError(ValueError):
    """A weight file cannot be used; the message is the reason, with keys."""


@dataclass(frozen=True, slots=True)
class WeightFinder:
    """Finds files that the request's ``field`` names; ``root`` is a real path, and nothing outside is accessed.

    ``suffixes`` are those of supported files; ``in_folder`` are the names of weight files in a named folder, the best
    first.
    """

    root: Path
    field: str
    suffixes: tuple[str, ...]
    in_folder: tuple[str, ...]

    def find(self, path: str) -> Path:
        """Return the real file of a request's path. Raises ``InvalidRequest`` and ``NotFound``."""
        parts = PurePosixPath(path).parts
        if not 1 <= len(path) <= _MAX_PATH_CHARACTERS:
            raise InvalidRequest(self.field, path, f"a path has 1 to {_MAX_PATH_CHARACTERS} characters")
        if path.startswith("/") or ".." in parts:
            raise InvalidRequest(self.field, path, "it must be relative to the model directory, without `..`")
        found = self._inside(path, self._place(path))
        if stat.S_ISDIR(found.stat().st_mode):
            weights = [found / name for name in self.in_folder if (found / name).exists()]
            if not weights:
                raise InvalidRequest(self.field, path, f"a folder must hold {' or '.join(self.in_folder)}")
            found = self._inside(path, weights[0])
        if not stat.S_ISREG(found.stat().st_mode) or found.suffix not in self.suffixes:
            raise InvalidRequest(self.field, path, f"it must be a file that ends in {', '.join(self.suffixes)}")
        return found

    def beside(self, path: str, name: str) -> Path | None:
        """Return the real file ``name`` in the folder, or beside the file, of ``path``; None if there is none."""
        place = self._place(path)
        found = self._resolved((place if place.is_dir() else place.parent) / name)
        return found if found is not None and found.is_file() else None

    def _place(self, path: str) -> Path:
        """Return the place of ``path``; letters may be composed or decomposed (NFC or NFD) in either."""
        place = self.root
        for part in PurePosixPath(path).parts:
            place /= part if part.isascii() else _name_in(place, part)
        return place

    def _inside(self, path: str, place: Path) -> Path:
        real = self._resolved(place)
        if real is None:
            raise NotFound(f"{self.field}: {shown(path)} is not in the model directory")
        return real

    def _resolved(self, place: Path) -> Path | None:
        """Return ``place`` with links resolved; None if it is outside ``root``, exactly as if it did not exist."""
        try:
            real = place.resolve()
            if real.is_relative_to(self.root) and real.exists():
                return real
        except (OSError, RuntimeError, ValueError):  # names that are too long or invalid, and circular links
            pass
        return None


def _name_in(folder: Path, name: str) -> str:
    """Return the entry of ``folder`` that is canonically equal to ``name``, else ``name``."""
    if os.path.lexists(folder / name):
        return name
    composed = unicodedata.normalize("NFC", name)
    try:
        entries = [entry.name for entry in folder.iterdir()]
    except OSError:
        return name
    return next((entry for entry in entries if unicodedata.normalize("NFC", entry) == composed), name)


class _Weights(Mapping[str, torch.Tensor]):
    """The tensors of an open safetensors file, each read on access."""

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
def opened(file: Path, max_bytes: int) -> Iterator[tuple[Mapping[str, torch.Tensor], Mapping[str, str]]]:
    """Open a file; yields its tensors, which may be the file's memory (copy them to keep them), and its metadata.

    Raises: WeightError: the file cannot be used.
    """
    if file.stat().st_size > max_bytes:
        raise WeightError(f"the file has more than {max_bytes // 2**20} MB")
    if fault := download_fault(file):
        raise WeightError(f"the file cannot be read: {fault}")
    if file.suffix != ".safetensors":
        with _reading():
            tensors = _unpickled(file)
        yield tensors, {}
        return
    with _reading():
        weights: Any = safe_open(file, framework="pt")
    with weights:
        # Tensors are read lazily: wrong files, however large, are usually rejected by their keys alone.
        yield _Weights(weights), weights.metadata() or {}


@contextmanager
def _reading() -> Iterator[None]:
    """Turn any error into a ``WeightError`` of the file."""
    try:
        yield
    except WeightError:
        raise
    except Exception as error:  # libraries may raise anything about a broken file
        raise WeightError(f"the file cannot be read ({type(error).__name__})") from error


def _unpickled(file: Path) -> Mapping[str, torch.Tensor]:
    if not zipfile.is_zipfile(file):
        raise WeightError("it is not in the format of torch.save since PyTorch 1.6; save it as .safetensors")
    try:
        loaded = read_pickle(file)
    except HarmfulPickle as error:
        raise WeightError(f"the file cannot be read: it is a pickle that holds more than tensors ({error})") from error
    except PickleError as error:
        raise WeightError(str(error)) from error
    if isinstance(loaded, Mapping) and "state_dict" in loaded:  # as training frameworks write it
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise WeightError("the file holds something other than named weights")
    return loaded


def is_plain(tensor: torch.Tensor) -> bool:
    """Return True if a tensor has one number in memory for each element."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def named(keys: Sequence[str]) -> str:
    """Return keys of a file for a message: the first ones, each cut to a bounded length."""
    first = ", ".join(key[:_MAX_KEY_CHARACTERS] for key in keys[:_MAX_NAMED_KEYS])
    more = len(keys) - _MAX_NAMED_KEYS
    return f"{first} and {more} more" if more > 0 else first
