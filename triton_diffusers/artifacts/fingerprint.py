"""What tells one model's weights from another's, in less than a second for gigabytes.

Of the configs everything counts; of a weight file its size, the names, types and shapes of its tensors, and a piece
of each. So another training, another merge or another precision has another fingerprint, while a copy, a download or a
touch has the same. Single bytes that were changed on purpose can go unnoticed: it tells models apart, and protects
nobody. The scheduler, the tokenizer and the safety checker do not count, since nothing of them is compiled.
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

_SCHEME = "fingerprint 1"  # change it when what is read changes
_COMPONENTS = ("text_encoder", "unet", "vae")
_PIECE = 4096  # bytes
_PIECES = 1024  # of a file whose tensors are not known
_TAIL = 2**20  # bytes; the directory of a zip, such as a .bin and a .ckpt are, has a checksum of each tensor
_MOST_HEADER = 100_000_000  # bytes; what safetensors itself allows


def fingerprint(model_dir: Path, vae: str = "") -> str:
    """The fingerprint of a model directory's base model, in hexadecimal; ``vae`` is the setting.

    Raises ``LoadError`` if there is none, and ``ArtifactError`` if a file of it cannot be read.
    """
    base = find_base_model(model_dir, vae)
    digest = hashlib.sha256(_SCHEME.encode())
    if base.is_file:
        # The name must not count, nor the folder's; what lies beside says how the file is to be understood.
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
    """The files of an autoencoder that replaces the model's own. A lone file's name must not count."""
    if vae.is_file():
        yield vae.suffix, vae
        return
    chosen = choose([path.name for path in vae.iterdir()], "float32")
    for path in sorted(vae.iterdir()):
        if path.name == "config.json" or (chosen and chosen.has(path.name)):
            yield path.name, path


def _component_files(folder: Path) -> Iterator[Path]:
    """The configs of the modules and the weight files that are loaded in float32, which is what is compiled."""
    for component in _COMPONENTS:
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
            spans = [*_spread(size), (max(0, size - _TAIL), _TAIL)]
        else:
            spans = [(0, size)]
        for start, length in spans:
            file.seek(start)
            digest.update(file.read(length))


def _tensors(file: BinaryIO, size: int, digest: Any) -> Iterator[tuple[int, int]]:
    """Of a safetensors file: a piece from the middle of every tensor, and the header; nothing if it is none."""
    (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
    if length > min(size, _MOST_HEADER):
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
        middle = (begin + end - _PIECE) // 2
        start = max(begin, middle)
        if 0 <= start < end <= size:
            yield 8 + length + start, min(_PIECE, end - start)


def _spread(size: int) -> list[tuple[int, int]]:
    stride = max(_PIECE, size // _PIECES)
    return [(start, _PIECE) for start in range(0, size, stride)]
