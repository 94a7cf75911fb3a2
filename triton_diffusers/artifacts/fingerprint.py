"""A fingerprint of a model's weights, computed in less than a second for gigabytes.

Configs count in full. A weight file counts by its size, by the names, types and shapes of its tensors, and by a piece
of each tensor. So another training, merge or precision changes the fingerprint, and a copy, download or touch does not.
It tells models apart, but does not protect against deliberate changes of single bytes. The scheduler, the tokenizer and
the safety checker do not count, since they are not compiled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from triton_diffusers.artifacts.manifest import ArtifactError
from triton_diffusers.checkpoints.layout import VAE_FOLDER, choose, find_base_model
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.families.registry import NETWORKS

_SCHEME = "fingerprint 1"  # change it when the content that is read changes
_PIECE_BYTES = 4096
_MAX_PIECES = 1024  # of a file whose tensors are unknown
_TAIL_BYTES = 2**20  # the directory of a zip, such as a .bin or .ckpt file, has a checksum of each tensor
_MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself


def fingerprint(model_dir: Path, vae: str = "") -> str:
    """Return the fingerprint of a model directory's base model, in hexadecimal; ``vae`` is the setting.

    Raises: LoadError: there is no base model. ArtifactError: one of its files cannot be read.
    """
    base = find_base_model(model_dir, vae)
    digest = hashlib.sha256(_SCHEME.encode())
    if base.is_file:
        # The names of the file and its folder must not count; the files beside it say how it is to be read.
        files = [(path.relative_to(base.path.parent).as_posix(), path) for path in Sidecar(base.path).files]
        files = [(name.removeprefix(base.path.stem), path) for name, path in files]
        files.append((base.path.suffix, base.path))
    else:
        files = [(path.relative_to(base.path).as_posix(), path) for path in _component_files(base.path)]
    if base.vae is not None:
        files += [(f"{VAE_FOLDER} {name}", path) for name, path in _vae_files(base.vae)]
    for name, path in files:
        try:
            _add(digest, name, path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _vae_files(vae: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of an autoencoder that replaces the model's own. The name of a single file does not count."""
    if vae.is_file():
        yield vae.suffix, vae
        return
    chosen = choose([path.name for path in vae.iterdir()], "float32")
    for path in sorted(vae.iterdir()):
        if path.name == "config.json" or (chosen and chosen.has(path.name)):
            yield path.name, path


def _component_files(folder: Path) -> Iterator[Path]:
    """Yield the configs of the modules, and the weight files that are loaded in float32 (the compiled precision)."""
    for component in NETWORKS:
        place = folder / component
        names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        chosen = choose(names, "float32")
        yield from (place / name for name in names if name == "config.json" or (chosen and chosen.has(name)))


def _add(digest: Any, name: str, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"\n{len(name)} {name} {size}\n".encode())
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            spans = list(_tensors(file, size, digest)) or _spread(size)
        elif path.suffix in (".bin", ".ckpt", ".pt"):
            spans = [*_spread(size), (max(0, size - _TAIL_BYTES), _TAIL_BYTES)]
        else:
            spans = [(0, size)]
        for start, length in spans:
            file.seek(start)
            digest.update(file.read(length))


def _tensors(file: BinaryIO, size: int, digest: Any) -> Iterator[tuple[int, int]]:
    """Hash the header of a safetensors file and yield the middle of each tensor; nothing if the header is invalid."""
    (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
    if length > min(size, _MAX_HEADER_BYTES):
        return
    text = file.read(length)
    try:
        header = json.loads(text)
        # Neither the order of the keys nor free text, such as the writer's version, changes a model.
        tensors = {key: header[key] for key in sorted(header) if key != "__metadata__"}
        spans = sorted((int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for entry in tensors.values())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return
    digest.update(json.dumps(tensors, sort_keys=True).encode())
    for begin, end in spans:
        middle = (begin + end - _PIECE_BYTES) // 2
        start = max(begin, middle)
        if 0 <= start < end <= size:
            yield 8 + length + start, min(_PIECE_BYTES, end - start)


def _spread(size: int) -> list[tuple[int, int]]:
    stride = max(_PIECE_BYTES, size // _MAX_PIECES)
    return [(start, _PIECE_BYTES) for start in range(0, size, stride)]
