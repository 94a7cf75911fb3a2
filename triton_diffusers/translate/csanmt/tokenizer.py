"""Convert Chinese text to token numbers, and token numbers to English text, as ModelScope's pipeline does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import jieba
from sacremoses import MosesDetokenizer
from subword_nmt.apply_bpe import BPE

from triton_diffusers.translate.csanmt.config import CsanmtConfig

END = 0
"""Token that ends a translation, and pads a source."""

_UNKNOWN = "<unk>"
_CONTINUES = "@@"  # suffix of a piece: the next one belongs to the same word


class CsanmtTokenizer:
    """A tokenizer with jieba's words, byte-pair encoding, and Moses' rules for English."""

    def __init__(self, folder: Path, config: CsanmtConfig, cache_dir: Path) -> None:
        """Read the vocabularies of ``folder``. jieba caches its dictionary in ``cache_dir``, for faster starts.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is invalid.
        """
        jieba.setLogLevel(logging.CRITICAL)
        self._words = jieba.Tokenizer()
        # jieba's default is a file in the temporary directory, which anybody could have written.
        cache_dir.mkdir(parents=True, exist_ok=True)
        self._words.tmp_dir = str(cache_dir)
        self._numbers = {piece: number for number, piece in enumerate(_lines(folder / config.dataset.src_vocab.file))}
        self._pieces = dict(enumerate(_lines(folder / config.dataset.trg_vocab.file)))
        self._unknown = config.model.src_vocab_size - 1
        if max(self._numbers.values(), default=0) > self._unknown:
            raise ValueError(f"{config.dataset.src_vocab.file} has more than {self._unknown + 1} lines")
        self._bpe = _read_merges(folder / config.preprocessor.src_bpe.file)
        self._english = MosesDetokenizer(lang=config.preprocessor.tgt_lang)

    def encode(self, text: str) -> list[int]:
        """Return the token numbers of a text."""
        pieces = self._bpe.process_line(" ".join(self._words.cut(text))).split()
        return [self._numbers.get(piece, self._unknown) for piece in pieces]

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of token numbers."""
        text = " ".join(self._pieces.get(number, _UNKNOWN) for number in numbers)
        words = text.replace(f"{_CONTINUES} ", "").replace(_CONTINUES, "").split()
        english: str = self._english.detokenize(words)
        return english


def _read_merges(path: Path) -> BPE:
    with path.open(encoding="utf-8") as codes:
        try:
            return BPE(codes)
        except SystemExit as error:  # raised for an invalid line
            raise ValueError(f"{path} is not a file of byte-pair merges") from error


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [line.strip() for line in file]
