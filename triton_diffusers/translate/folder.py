"""Find the translator's folder, and recognise the kind of its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import sentencepiece

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.settings import Settings

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MARIAN_FILES = ("config.json", "source.spm", "target.spm", "vocab.json")
_OPTIONAL_MARIAN_FILES = ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json")


class FolderKind(StrEnum):
    """The kind of model in a folder."""

    MARIAN = "marian"
    CSANMT = "csanmt"


def find_own_folder(settings: Settings) -> Path | None:
    """Return ``translate/`` of the model directory, or None if there is none."""
    own = settings.model_folder / "translate"
    return own if own.is_dir() else None


def find_folder(settings: Settings) -> Path:
    """Return the model directory's translator, or the default one. Raises ``LoadError`` if there is neither."""
    if (own := find_own_folder(settings)) is not None:
        return own
    if not settings.translator_dir.is_dir():
        raise LoadError(
            f"{settings.model_folder / 'translate'} does not exist, and the default translator "
            f"{settings.translator_dir} is not a folder either"
        )
    return settings.translator_dir


def kind_of(folder: Path) -> FolderKind:
    """Return the kind of model in ``folder``. Raises ``LoadError`` with the missing files."""
    if "csanmt" in json.dumps(_read(folder / "configuration.json")):
        return FolderKind.CSANMT
    if _read(folder / "config.json").get("model_type") != "marian":
        raise LoadError(
            f"{folder} is not a known translator: neither a Marian model (opus-mt: {', '.join(_MARIAN_FILES)}"
            f" and {' or '.join(_WEIGHTS)}) nor ModelScope's CSANMT (configuration.json)"
        )
    marian_weights(folder)
    if missing := [name for name in _MARIAN_FILES if not (folder / name).is_file()]:
        raise LoadError(f"{folder} lacks {', '.join(missing)} of a Marian model")
    return FolderKind.MARIAN


def marian_weights(folder: Path) -> Path:
    """Return the weight file of a Marian model. Raises ``LoadError`` if there is none."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise LoadError(f"{folder} lacks the weights of a Marian model: {' or '.join(_WEIGHTS)}")


def marian_files(folder: Path) -> tuple[Path, ...]:
    """Return the existing files of a Marian model other than its weights."""
    paths = (folder / name for name in (*_MARIAN_FILES, *_OPTIONAL_MARIAN_FILES))
    return tuple(path for path in paths if path.is_file())


def english_pieces(folder: Path) -> frozenset[str]:
    """Return the pieces of a Marian model's translations, including the end and the unknown token.

    Both languages share one vocabulary; a translation needs only the English half.
    """
    processor = sentencepiece.SentencePieceProcessor(str(folder / "target.spm"))
    return frozenset(processor.id_to_piece(number) for number in range(processor.get_piece_size()))


def _read(path: Path) -> Mapping[str, Any]:
    """Return a JSON object; empty if the file does not exist."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
