"""The checkpoint with random weights is one that everybody can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import CLIPTextModel

from benchmarks.random_model import TINY, make_model
from triton_diffusers.checkpoints.layout import BASE_MODEL


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("random") / "model"
    make_model(model, TINY)
    return model / BASE_MODEL / "text_encoder"


def test_the_text_encoder_has_the_names_of_published_checkpoints(text_encoder: Path) -> None:
    with safe_open(text_encoder / "model.safetensors", "pt") as tensors:
        names = list(tensors.keys())
    assert all(name.startswith(("text_model.embeddings.", "text_model.encoder.", "text_model.final")) for name in names)


def test_and_by_those_it_is_read(text_encoder: Path) -> None:
    _, info = CLIPTextModel.from_pretrained(text_encoder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
