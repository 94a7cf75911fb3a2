from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.translator.export import export
from training.translator.model import FORBIDDEN, Pieces, build_model
from training.translator.vocabulary import load_vocabulary
from triton_diffusers.translate.folder import FolderKind, kind_of

EMBEDDED = Path(__file__).resolve().parents[4] / "models" / "translator"


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return Pieces(EMBEDDED)


def test_ids_end_and_are_those_of_the_file(pieces: Pieces) -> None:
    assert json.loads((EMBEDDED / "vocab.json").read_text(encoding="utf-8")) == pieces.vocabulary
    end = pieces.vocabulary["</s>"]
    assert pieces.source("苹果")[-1] == pieces.target("an apple")[-1] == end
    assert pieces.padding == len(pieces.vocabulary) - 1


def test_english_pieces_are_the_first_ones(pieces: Pieces) -> None:
    assert max(pieces.target("a red apple on a blue background")) < pieces.outputs
    assert pieces.outputs < len(pieces.vocabulary)


def test_a_word_has_the_meaning_that_it_was_told_and_is_never_said(pieces: Pieces) -> None:
    word = next(
        word
        for word in load_vocabulary()["nouns"]
        if len(ids := pieces.source(word.chinese)) == 2 and ids[0] >= pieces.outputs
    )
    model = build_model(pieces, [word])
    table = model.get_input_embeddings().weight
    chinese, english = pieces.source(word.chinese)[0], pieces.target(word.english)[:-1]
    torch.testing.assert_close(table[chinese], table[english].sum(0) / len(english) ** 0.5)
    assert not table[pieces.padding].any()
    assert (model.final_logits_bias[:, pieces.outputs :] == FORBIDDEN).all()
    assert not model.final_logits_bias[:, : pieces.outputs].any()


def test_export_writes_a_marian_folder_of_averaged_weights(pieces: Pieces, tmp_path: Path) -> None:
    model = build_model(pieces, [])
    average = {name: torch.full_like(weight, 0.25) for name, weight in model.named_parameters()}
    export(model, average, pieces, tmp_path / "model")
    assert kind_of(tmp_path / "model") is FolderKind.MARIAN
    weights = load_file(tmp_path / "model" / "model.safetensors")
    trained = {name: weight for name, weight in weights.items() if "embed_positions" not in name and name in average}
    assert len(trained) > 20
    assert all(weight.dtype == torch.float16 and (weight == 0.25).all() for weight in trained.values())
