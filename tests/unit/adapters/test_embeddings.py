"""Textual-inversion embeddings: against diffusers' pipeline, and files that are none."""

from __future__ import annotations

import logging
import pickle
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from tests.unit.conftest import ROOT
from tests.unit.engine_calls import encode
from triton_diffusers.adapters.embeddings import attach_embeddings
from triton_diffusers.checkpoints.load import Components, load_components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.prompts import PromptReader
from triton_diffusers.settings import Settings

WIDTH = 192
EMOJI = ROOT / "models" / "emoji"


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fresh(components: Components) -> Components:
    """Return the emoji model with a tokenizer and a text encoder to change."""
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "base_model" / "tokenizer")
    return replace(
        components,
        tokenizers={"tokenizer": tokenizer},
        text_encoders={"text_encoder": deepcopy(components.text_encoder)},
    )


@pytest.fixture
def attach(fresh: Components, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Attaches what is in the folder; gives the words that were added and what was said."""

    def attach() -> tuple[list[str], list[str]]:
        before = set(fresh.tokenizer.get_vocab())
        with caplog.at_level(logging.WARNING, logger="triton_diffusers.adapters.embeddings"):
            attach_embeddings(tmp_path, [fresh.tokenizer], [fresh.text_encoder])
        name = "triton_diffusers.adapters.embeddings"
        said = [record.getMessage() for record in caplog.records if record.name == name]
        return sorted(set(fresh.tokenizer.get_vocab()) - before), said

    return attach


def save(content: Any, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(content if isinstance(content, dict) else {"x": content}, path)
    else:
        torch.save(content, path)


def save_all(folder: Path) -> list[Path]:
    """One embedding in each of the forms that they come in."""
    save_file({"emb_params": vectors(3, 1)}, folder / "many-vectors.safetensors")
    torch.save({"<a-concept>": vectors(1, 2)[0]}, folder / "concept.bin")
    automatic = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(2, 3)}, "name": "x", "step": 7}
    torch.save(automatic, folder / "automatic.pt")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "prompt",
    [
        "an apple, many-vectors",
        "concept",
        "automatic apple by many-vectors, concept and automatic",
        "many-vectors_1",
        "an apple",
    ],
)
@torch.inference_mode()
def test_an_embedding_is_diffusers(fresh: Components, attach: Any, tmp_path: Path, prompt: str) -> None:
    files = save_all(tmp_path)
    pipeline = StableDiffusionPipeline(
        vae=fresh.vae,
        text_encoder=deepcopy(fresh.text_encoder),
        tokenizer=CLIPTokenizer.from_pretrained(EMOJI / "base_model" / "tokenizer"),
        unet=fresh.denoiser,
        scheduler=DDIMScheduler.from_config(fresh.family.schedule.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for file in files:
        pipeline.load_textual_inversion(str(file), token=file.stem)
    expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
    words, said = attach()
    assert said == []
    assert words == ["automatic", "automatic_1", "concept", "many-vectors", "many-vectors_1", "many-vectors_2"]
    (chunk,) = PromptReader(fresh.tokenizer, 1).read(prompt).chunks
    assert torch.equal(encode(EagerEngine(fresh), [chunk.tokens], 1), expected)


def test_each_vector_is_at_its_token(fresh: Components, attach: Any, tmp_path: Path) -> None:
    save_all(tmp_path)
    before = fresh.text_encoder.get_input_embeddings().weight.detach().clone()
    attach()
    table = fresh.text_encoder.get_input_embeddings().weight.detach()
    ids = fresh.tokenizer.convert_tokens_to_ids(["many-vectors", "many-vectors_1", "many-vectors_2"])
    assert torch.equal(table[ids], vectors(3, 1))
    assert torch.equal(table[: len(before)], before)
    assert len(table) == len(before) + 6


def test_a_word_may_have_capitals(fresh: Components, attach: Any, tmp_path: Path) -> None:
    save_file({"x": vectors(2)}, tmp_path / "EasyNegative.safetensors")
    attach()
    reader = PromptReader(fresh.tokenizer, 1)
    ids = fresh.tokenizer.convert_tokens_to_ids(["EasyNegative", "EasyNegative_1"])
    for text in ("EasyNegative", "(easynegative:1)"):
        assert list(reader.read(text).chunks[0].tokens.ids[1:3]) == ids


def test_a_missing_folder_has_no_embeddings(fresh: Components, tmp_path: Path) -> None:
    attach_embeddings(tmp_path / "embeddings", [fresh.tokenizer], [fresh.text_encoder])
    assert fresh.tokenizer.get_added_vocab().keys() == {"<|startoftext|>", "<|endoftext|>"}


class Harm:
    """A pickle that does something when it is read."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


BROKEN: dict[str, tuple[Any, str]] = {
    "empty": (b"", "Error"),
    "noise": (b"\x80\x02noise", "Error"),
    "width": ({"x": torch.zeros(2, 768)}, "its vectors have 768 numbers, those of this model's text encoder 192"),
    "two": ({"clip_l": vectors(1), "clip_g": vectors(1)}, "it holds 2 entries"),
    "none": ({}, "it holds 0 entries"),
    "many": ({"x": vectors(76)}, "it has 76 vectors; a chunk of a prompt holds 1 to 75"),
    "no-vector": ({"x": vectors(0)}, "it has 0 vectors"),
    "deep": ({"x": torch.zeros(2, 3, WIDTH)}, "it holds no vectors"),
    "whole": ({"x": torch.zeros(WIDTH, dtype=torch.int64)}, "it holds no vectors"),
    "text": ({"x": "vectors"}, "it holds no vectors"),
    "infinite": ({"x": torch.full((WIDTH,), torch.inf)}, "it contains NaN or infinite values"),
    "a": ({"x": vectors(1)}, "already has the word 'a'"),
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in BROKEN
        for suffix in ("bin", "pt", "safetensors")
        if (name, suffix) != ("text", "safetensors")  # which holds tensors only
    ],
)
def test_a_broken_file_is_left_out_by_name(attach: Any, tmp_path: Path, name: str, suffix: str) -> None:
    content, reason = BROKEN[name]
    path = tmp_path / f"{name}.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(content, path)
    save(vectors(1), tmp_path / "good-one.safetensors")
    words, (said,) = attach()
    assert words == ["good-one"]
    assert str(path) in said
    assert reason in said


def test_a_pickle_that_runs_code_is_left_out(attach: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.pt").write_bytes(pickle.dumps({"x": Harm()}))
    torch.save({"x": Harm()}, tmp_path / "other.bin")
    words, said = attach()
    assert words == []
    assert len(said) == 2
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("style.bin", "style.safetensors"),
        ("Style.bin", "style.pt"),
        ("style.safetensors", "style_1.safetensors"),  # has two vectors
        ("style.safetensors", "style_2.bin"),  # would be read as a third
    ],
)
def test_of_two_files_for_one_word_the_first_counts(attach: Any, tmp_path: Path, first: str, second: str) -> None:
    for seed, name in enumerate([second, first]):
        path = tmp_path / name
        save_file({"x": vectors(2, seed)}, path) if path.suffix == ".safetensors" else torch.save(
            vectors(2, seed), path
        )
    words, (said,) = attach()
    assert words == [Path(first).stem, f"{Path(first).stem}_1"]
    assert f"{second} is left out" in said


def test_other_files_are_ignored(attach: Any, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("words")
    (tmp_path / ".pt").write_text("hidden")
    assert attach() == ([], [])


def test_a_folder_is_loaded_with_its_model(tmp_path: Path) -> None:
    (tmp_path / "base_model").symlink_to(EMOJI / "base_model")
    (tmp_path / "embeddings").mkdir()
    save_file({"x": vectors(2)}, tmp_path / "embeddings" / "my-style.safetensors")
    (tmp_path / "embeddings" / "broken.pt").write_bytes(b"")
    loaded = load_components(Settings(model_dir=tmp_path, device="cpu", dtype="bfloat16", close_safety=True))
    assert {"my-style", "my-style_1"} <= loaded.tokenizer.get_vocab().keys()
    table = loaded.text_encoder.get_input_embeddings().weight
    assert table.dtype == torch.bfloat16
    assert torch.equal(table[-2:], vectors(2).bfloat16())
    assert not loaded.text_encoder.training
