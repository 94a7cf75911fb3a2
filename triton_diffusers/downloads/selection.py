"""The choice of a source's files to download, and of their place in a model directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from triton_diffusers.checkpoints.layout import BASE_MODEL, FILE_SUFFIXES, INDEX, choose, files_of, is_vae_file
from triton_diffusers.downloads.buckets import is_bucket
from triton_diffusers.downloads.remote import RemoteFile, SourceError
from triton_diffusers.families.registry import COMPONENTS

# Compiled artifacts can be programs: accepted from the operator's own bucket, not from public hubs.
_COMPILED = "optimized_model/"
_OTHER_WEIGHTS = (".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".xml", ".pt", ".pth")


def select(files: Sequence[RemoteFile], dtype: str, source: str) -> tuple[str, list[RemoteFile]]:
    """Return the target folder within the model directory (empty for a whole model directory), and the files needed.

    A source is a model directory if it has ``base_model/``, a base model if it has a ``model_index.json``, and a base
    model in one file if it has exactly one checkpoint at its root. Of weights in several variants, those nearest to
    ``dtype`` are chosen.

    Raises: SourceError: it is none of these.
    """
    if any(_is_base_model(file.path) for file in files):
        left_out = (".",) if is_bucket(source) else (".", _COMPILED)
        return "", _without_copies(
            [file for file in files if not file.path.startswith(left_out)], f"{BASE_MODEL}/", dtype
        )
    if any(file.path == INDEX for file in files):
        inside = [file for file in files if "/" in file.path and file.path.split("/")[0] in COMPONENTS]
        index = [file for file in files if file.path == INDEX]
        return BASE_MODEL, [*index, *_without_copies(inside, "", dtype)]
    at_root = [file for file in files if "/" not in file.path]
    checkpoints = [file for file in at_root if file.path.endswith(FILE_SUFFIXES) and not is_vae_file(file.path)]
    if len(checkpoints) != 1:
        found = ", ".join(file.path for file in checkpoints[:5]) or "none"
        raise SourceError(
            f"{source} is not a model: expected {BASE_MODEL}/, {INDEX}, or one checkpoint at its root, got {found}"
        )
    stem = PurePosixPath(checkpoints[0].path).stem
    sidecars = [f"{stem}{suffix}" for suffix in (".yaml", ".yml", ".json")]
    vaes = [file for file in at_root if is_vae_file(file.path) and file.path.startswith(f"{stem}.vae.")]
    beside = [file for file in files if file.path in sidecars or file.path.startswith(f"{stem}.config/")]
    return BASE_MODEL, [*checkpoints, *vaes, *beside]


def _is_base_model(path: str) -> bool:
    return path.startswith(f"{BASE_MODEL}/") or path in [f"{BASE_MODEL}{suffix}" for suffix in FILE_SUFFIXES]


def _without_copies(files: list[RemoteFile], prefix: str, dtype: str) -> list[RemoteFile]:
    """Return ``files`` without those weights in the component folders below ``prefix`` that would not be loaded."""
    names = defaultdict(list)
    for file in files:
        names[str(PurePosixPath(file.path).parent)].append(PurePosixPath(file.path).name)
    components = {f"{prefix}{name}": choose(names[f"{prefix}{name}"], dtype) for name in COMPONENTS}

    def needed(file: RemoteFile) -> bool:
        path = PurePosixPath(file.path)
        if str(path.parent) not in components:
            return True
        chosen = components[str(path.parent)]
        return not path.name.endswith(_OTHER_WEIGHTS) and (
            files_of(path.name) is None or (chosen is not None and chosen.has(path.name))
        )

    return [file for file in files if needed(file)]
