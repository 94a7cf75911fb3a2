"""The stages of training, in the order in which `all` runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.emoji.assets import Assets
from training.emoji.pictures import load_pictures
from training.emoji.run import Run
from training.emoji.subjects import load_subjects
from training.translator.evaluate import evaluate
from training.translator.export import export
from training.translator.model import Pieces, build_model, train_pieces
from training.translator.nouns import emojibase_names, fetch_names, named_nouns, subject_nouns
from training.translator.phrases import PhraseBook
from training.translator.retrieval import retrieval
from training.translator.train import train
from training.translator.vocabulary import Word, load_vocabulary

SHARES = {"subjects": 0.4, "words": 0.25, "names": 0.35}
"""Of the kinds of nouns among the nouns of a phrase."""
PIECES_SHARES = {"subjects": 1.0, "words": 1.0, "names": 0.6}
"""How much each kind counts when the pieces of the languages are found."""
PIECES_PHRASES = 40_000
EVALUATION_SEED = 1_000_003
WORKERS = 2
"""Processes that draw, one thread each."""


@dataclass(frozen=True)
class Workshop:
    """Where things are."""

    cache: Path
    run_dir: Path
    output: Path
    iterations: int
    emoji: Path
    subjects: int | None

    @cached_property
    def nouns(self) -> dict[str, list[Word]]:
        """By kind."""
        fetch_names(self.cache)
        words = list(load_vocabulary()["nouns"])
        return {
            "subjects": subject_nouns(load_subjects(), self.cache),
            "words": words,
            "names": named_nouns(self.cache),
        }

    def book(self, seed: int, shares: dict[str, float] = SHARES) -> PhraseBook:
        """Phrases. A word that two kinds of nouns have means what the first one says."""
        taken: set[str] = set()
        nouns = []
        for kind, words in self.nouns.items():
            nouns.append(([word for word in words if word.chinese not in taken], shares[kind]))
            taken |= {word.chinese for word in words}
        return PhraseBook(nouns, load_vocabulary(), seed)

    def pieces(self) -> Pieces:
        """Return the languages' pieces, found on first use."""
        folder = self.run_dir / "pieces"
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            book = self.book(0, PIECES_SHARES)
            train_pieces(book.chinese_words(), "source", part)
            train_pieces([book.taught().english[0] for _ in range(PIECES_PHRASES)], "target", part)
            part.rename(folder)
        return Pieces(folder)


def data(shop: Workshop) -> None:
    """Fetch the names, find the pieces, and show what phrases look like."""
    for kind, words in shop.nouns.items():
        print(f"{len(words)} {kind}")
    print(f"{len(shop.pieces().vocabulary)} pieces")
    book = shop.book(0)
    for _ in range(10):
        phrase = book.taught()
        print(f"{phrase.chinese} = {phrase.english[0]}")


def training(shop: Workshop) -> None:
    """Train the model, resuming from its checkpoint."""
    pieces = shop.pieces()
    words = [word for kind in (*reversed(shop.nouns.values()), *load_vocabulary().values()) for word in kind]
    train(Run(shop.run_dir, "translator"), build_model(pieces, words), pieces, shop.book, shop.iterations)


def exporting(shop: Workshop) -> None:
    """Write the averaged weights in half precision, in opus-mt's layout."""
    state = Run(shop.run_dir, "translator").load()
    if state is None:
        raise SystemExit(f"{shop.run_dir} holds no trained model: run the stage train first")
    pieces = shop.pieces()
    export(build_model(pieces, ()), state["average"], pieces, shop.output)


def evaluation(shop: Workshop) -> None:
    """Measure the exported model as it is served; write `evaluation.json`."""
    figures = evaluate(shop.output, shop.book(EVALUATION_SEED), shop.nouns)
    _write(figures, shop.output / "evaluation.json")


def drawing(shop: Workshop) -> None:
    """Draw the subjects from their Chinese names; add the figures to `evaluation.json` if it is all of them."""
    subjects = load_subjects()[: shop.subjects]
    assets = Assets(shop.cache)
    assets.fetch()
    pictures = load_pictures([assets.picture_path(subject.hexcode) for subject in subjects])
    names = emojibase_names(subjects, shop.cache)
    found = retrieval(shop.output, shop.emoji / "base_model", names, pictures, WORKERS)
    if shop.subjects is not None:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    path = shop.output / "evaluation.json"
    _write({**json.loads(path.read_text(encoding="utf-8")), "drawn": found}, path)


def _write(figures: dict[str, Any], path: Path) -> None:
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


STAGES: dict[str, Callable[[Workshop], None]] = {
    "data": data,
    "train": training,
    "export": exporting,
    "evaluate": evaluation,
    "draw": drawing,
}
"""The stages that `all` runs, in this order."""
