"""The files that the command line writes: names, and a check before the request that they can be written."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from triton_diffusers_client.generation import Generation
from triton_diffusers_client.image import SUFFIXES, EncodedImage, format_of_suffix

_DEFAULT_FORMAT = "png"


def output_path(text: str) -> Path:
    """Return the path that ``--output`` names, of a file or a folder.

    Raises ``argparse.ArgumentTypeError`` for one that cannot be written.
    """
    path = Path(text)
    is_folder = path.is_dir()
    if not is_folder and text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: the folder does not exist")
    if not is_folder and path.suffix and format_of_suffix(path.suffix) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is invalid: {path.suffix} is not written; use {', '.join(SUFFIXES)}, or no suffix"
        )
    folder = path if is_folder else path.parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: the folder {str(folder)!r} does not exist")
    if not (os.access(path, os.W_OK) if path.exists() and not is_folder else os.access(folder, os.W_OK | os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text!r} is invalid: it cannot be written")
    return path


def paths_for(generation: Generation, output: Path | None) -> list[Path]:
    """Return where each image of ``generation`` goes, if the caller said ``output``."""
    return _numbered(_path_for(generation, output), len(generation.images))


def control_paths_for(generation: Generation, output: Path | None) -> list[Path]:
    """Return where its control images go: beside the others, as PNG."""
    path = _path_for(generation, output)
    return _numbered(path.with_name(f"{path.stem}-control.png"), len(generation.control_images))


def _path_for(generation: Generation, output: Path | None) -> Path:
    suffix = {"jpeg": ".jpg"}.get(_format(generation.images), f".{_format(generation.images)}")
    if output is None:
        return Path(generation.task_id + suffix)
    if output.is_dir():
        return output / (generation.task_id + suffix)
    return output if output.suffix else output.with_name(output.name + suffix)


def _numbered(path: Path, count: int) -> list[Path]:
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def _format(images: Iterable[EncodedImage]) -> str:
    return next((image.format for image in images), _DEFAULT_FORMAT)
