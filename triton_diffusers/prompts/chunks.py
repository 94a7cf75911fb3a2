"""Prompts as chunks of token ids, each as long as the text encoder has positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triton_diffusers.prompts.syntax import Span, parse


@dataclass(frozen=True, slots=True)
class Tokens:
    """One input of the text encoder: a beginning, a chunk's tokens, an end, and padding up to its positions."""

    ids: tuple[int, ...]
    attention_mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens, and for each of them its attention weight (1 for beginning, end and padding)."""

    tokens: Tokens
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's chunks, at least one, and the texts that they leave out and whose weights were limited."""

    chunks: tuple[Chunk, ...]
    cut: str
    limited: str = ""

    def warning(self, field: str) -> str | None:
        """What to tell the caller if something was cut."""
        return f"{field}: too long, only {len(self.chunks)} chunks were used, cut: {self.cut!r}" if self.cut else None


@dataclass(frozen=True, slots=True)
class _Unit:
    """Tokens that stay together: one, or all the vectors of a textual-inversion embedding."""

    ids: tuple[int, ...]
    weight: float


class PromptReader:
    """Reads prompts for one tokenizer (CLIP's, or one that answers like it)."""

    def __init__(self, tokenizer: Any, most_chunks: int) -> None:
        self._tokenizer = tokenizer
        self._most_chunks = most_chunks
        self.capacity = tokenizer.model_max_length - 2  # 75; a beginning and an end go with every chunk
        # BERT's tokenizers, as of Chinese models, call the ends of a text by other names.
        self._begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self._end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        self._embeddings = _multi_vector_embeddings(tokenizer.get_added_vocab())
        self.empty = self._chunk([])

    def read(self, text: str) -> Prompt:
        """The chunks of a prompt, at most ``most_chunks``; what does not fit is told in ``cut``.

        A chunk takes as many tokens as it has places for, wherever that parts a phrase; ``BREAK`` ends it early. The
        chunk of a text of no tokens is ``empty``.
        """
        sections = parse(text)
        tokenized = self._tokenized([span for section in sections for span in section])
        filled: list[list[_Unit]] = []
        for section in sections:
            filled.extend(self._fill([unit for _ in section for unit in next(tokenized)]))
        chunks = tuple(self._chunk(chunk) for chunk in filled[: self._most_chunks])
        rest = [number for chunk in filled[self._most_chunks :] for unit in chunk for number in unit.ids]
        cut = self._tokenizer.decode(rest, skip_special_tokens=True).strip() if rest else ""
        limited = next((span.text for section in sections for span in section if span.limited), "")
        return Prompt(chunks or (self.empty,), cut, limited)

    def _tokenized(self, spans: Sequence[Span]) -> Iterator[list[_Unit]]:
        if spans:
            texts = [span.text for span in spans]
            ids = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            for span, numbers in zip(spans, ids, strict=True):
                yield [_Unit(self._embeddings.get(number, (number,)), span.weight) for number in numbers]

    def _fill(self, units: Iterable[_Unit]) -> Iterator[list[_Unit]]:
        """The units in runs that fit into a chunk, none of them empty."""
        chunk: list[_Unit] = []
        room = self.capacity
        for unit in units:
            if len(unit.ids) > room:
                yield chunk
                chunk, room = [], self.capacity
            chunk.append(unit)
            room -= len(unit.ids)
        if chunk:
            yield chunk

    def _chunk(self, units: Sequence[_Unit]) -> Chunk:
        ids = [number for unit in units for number in unit.ids]
        weights = [unit.weight for unit in units for _ in unit.ids]
        padding = self.capacity - len(ids)
        return Chunk(
            Tokens(
                (self._begin, *ids, self._end, *[self._tokenizer.pad_token_id] * padding),
                (*[1] * (len(ids) + 2), *[0] * padding),
            ),
            (1.0, *weights, *[1.0] * (padding + 1)),
        )


def _multi_vector_embeddings(added: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
    """All the vectors' ids, by the id of the trigger word. Diffusers calls the second vector of ``word`` ``word_1``.

    Diffusers puts them into the text; by id, a word is found whose case the tokenizer folds, too, and one that another
    word begins with is left alone.
    """
    embeddings = {}
    for word, first in added.items():
        ids = [first]
        while (following := added.get(f"{word}_{len(ids)}")) is not None:
            ids.append(following)
        if len(ids) > 1:
            embeddings[first] = tuple(ids)
    return embeddings
