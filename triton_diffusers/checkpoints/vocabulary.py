"""CLIP's vocabulary, common to Stable Diffusion 1.x and 2.x, which a checkpoint in one file lacks."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, *, pad_token: str, length: int) -> None:
    """Write CLIP's tokenizer in transformers' layout into the new ``folder``; ``length`` is its maximum."""
    merges = gzip.decompress((files(__package__) / "clip" / "merges.txt.gz").read_bytes()).decode("utf-8").splitlines()
    characters = _byte_characters()
    words = [
        *characters,
        *(f"{character}</w>" for character in characters),
        *(merge.replace(" ", "") for merge in merges),
        START,
        END,
    ]
    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(words)}
    _write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
        "model_max_length": length,
    }
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))


def _byte_characters() -> list[str]:
    """Return the character for each byte in the vocabulary's order: first those that print as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [*map(chr, printable), *(chr(256 + number) for number in range(others))]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
