"""The engines on one Marian folder: CTranslate2 and transformers agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.translate.marian import CHINESE, ENGLISH
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine, convert
from triton_diffusers.translate.engines.protocol import max_output_tokens
from triton_diffusers.translate.engines.transformers import TransformersEngine

EMBEDDED = Path(__file__).resolve().parents[3] / "models" / "translator"
TEXTS = [*CHINESE, "红", "猫猫猫猫猫猫猫猫", "unknown 词语"]


@pytest.mark.parametrize("beams", [1, 4])
def test_ctranslate2_agrees_with_transformers(tmp_path: Path, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the embedded model in float32, for known and unknown words."""
    for module in ("ctranslate2", "transformers"):
        monkeypatch.setattr(f"triton_diffusers.translate.engines.{module}.min_score", lambda folder: None)
    convert(EMBEDDED, tmp_path, "float32")
    english = CTranslate2Engine(tmp_path, EMBEDDED, beams=beams).translate(TEXTS)
    assert english == TransformersEngine(EMBEDDED, beams=beams).translate(TEXTS)
    assert len(set(english)) == len(TEXTS)


KNOWN = {"红苹果": "red apple", "蓝色背景上的猫": "a cat on a blue background", "杰作": "masterpiece"}
UNKNOWN = ["量子计算机", "中华人民共和国", "你好", "囧", "龘龘", "江南水乡"]


@pytest.mark.parametrize("beams", [1, 4])
def test_the_embedded_model_returns_none_for_unknown_texts(tmp_path: Path, beams: int) -> None:
    convert(EMBEDDED, tmp_path)
    texts = [text for pair in zip(KNOWN, UNKNOWN, strict=False) for text in pair] + UNKNOWN
    expected = [KNOWN.get(text) for text in texts]
    for engine in (CTranslate2Engine(tmp_path, EMBEDDED, beams=beams), TransformersEngine(EMBEDDED, beams=beams)):
        assert engine.translate(texts) == expected


@pytest.mark.parametrize("beams", [1, 4])
def test_engines_agree_on_texts_that_only_the_bound_ends(written_marian: Path, tmp_path: Path, beams: int) -> None:
    """With random weights, each text alone, since the beams of a batch depend on when it ends."""
    convert(written_marian, tmp_path, "float32")
    converted = CTranslate2Engine(tmp_path, written_marian, beams=beams)
    original = TransformersEngine(written_marian, beams=beams)
    for text in TEXTS:
        assert converted.translate([text]) == original.translate([text])


def test_a_translation_is_independent_of_other_texts(written_marian: Path, tmp_path: Path) -> None:
    convert(written_marian, tmp_path, "float32")
    for engine in (CTranslate2Engine(tmp_path, written_marian, beams=1), TransformersEngine(written_marian, beams=1)):
        assert engine.translate(TEXTS) == [text for each in TEXTS for text in engine.translate([each])]


def test_a_translation_is_made_of_english_pieces(written_marian: Path, tmp_path: Path) -> None:
    """Random weights use every piece that is allowed."""
    convert(written_marian, tmp_path, "float32")
    english = {letter for text in ENGLISH for letter in text}
    for engine in (CTranslate2Engine(tmp_path, written_marian, beams=1), TransformersEngine(written_marian, beams=1)):
        assert set("".join(map(str, engine.translate(TEXTS)))) <= english
    sayable = json.loads((tmp_path / "target_vocabulary.json").read_text())
    assert len(sayable) < len(json.loads((written_marian / "vocab.json").read_text())) - 1


def test_output_is_bounded_by_its_input(written_marian: Path, tmp_path: Path) -> None:
    convert(written_marian, tmp_path, "float32")
    engine = CTranslate2Engine(tmp_path, written_marian, beams=1)
    (english,) = engine.translate(["红" * 3])
    assert len(engine._target.encode(english)) <= max_output_tokens(3 + 2) + 1


def test_a_folder_is_converted_once(written_marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "translate"
    shutil.copytree(written_marian, folder)
    settings = Settings(cache_dir=tmp_path / "cache")
    first = CTranslate2Engine.load(folder, settings).translate(TEXTS)
    assert (folder / "model.converted" / "model.bin").is_file()
    monkeypatch.setattr("triton_diffusers.translate.engines.ctranslate2.convert", pytest.fail)
    assert CTranslate2Engine.load(folder, settings).translate(TEXTS) == first


def test_a_changed_vocabulary_is_converted_again(written_marian: Path, tmp_path: Path) -> None:
    folder = tmp_path / "translate"
    shutil.copytree(written_marian, folder)
    settings = Settings(cache_dir=tmp_path / "cache")
    CTranslate2Engine.load(folder, settings)
    made = (folder / "model.converted" / "model.bin").stat().st_mtime_ns
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(vocabulary.read_text() + " ")
    CTranslate2Engine.load(folder, settings)
    assert (folder / "model.converted" / "model.bin").stat().st_mtime_ns > made


@pytest.mark.parametrize("engine", [CTranslate2Engine, TransformersEngine])
def test_broken_weights_are_an_error(engine: Any, written_marian: Path, tmp_path: Path) -> None:
    folder = tmp_path / "translate"
    shutil.copytree(written_marian, folder)
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(LoadError, match="translate"):
        engine.load(folder, Settings(cache_dir=tmp_path / "cache"))
    assert not list(folder.glob("*.converted"))
