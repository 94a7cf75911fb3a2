"""The choice of a server's translator folder and engine."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.errors import NotTranslated
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.csanmt import CsanmtEngine
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine
from triton_diffusers.translate.engines.transformers import TransformersEngine
from triton_diffusers.translate.folder import FolderKind, find_folder, kind_of
from triton_diffusers.translate.loading import load_engine, load_translator
from triton_diffusers.translate.translator import Field, Translation


@pytest.fixture
def settings(written_marian: Path, tmp_path: Path) -> Settings:
    return Settings(model_dir=tmp_path, translator_dir=written_marian, cache_dir=tmp_path / "cache")


def changed(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def test_a_folder_in_the_model_directory_takes_over(settings: Settings) -> None:
    assert find_folder(settings) == settings.translator_dir
    own = settings.model_dir / "translate"
    own.mkdir()
    assert find_folder(settings) == own


def test_a_missing_translator_is_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="translate"):
        find_folder(changed(settings, translator_dir=tmp_path / "none"))


def test_the_kind_of_a_folder_is_recognised(written_marian: Path, tmp_path: Path) -> None:
    assert kind_of(written_marian) is FolderKind.MARIAN
    configuration = {"framework": "tensorflow", "task": "translation", "pipeline": {"type": "csanmt-translation"}}
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    assert kind_of(tmp_path) is FolderKind.CSANMT


def test_folders_without_a_translator_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not a known translator"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    with pytest.raises(LoadError, match="lacks the weights"):
        kind_of(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(LoadError, match=r"lacks source\.spm, target\.spm, vocab\.json"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LoadError, match="cannot be read"):
        kind_of(tmp_path)


def test_the_engine_is_the_one_set_or_the_first_installed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(load_engine(settings), CTranslate2Engine)
    assert isinstance(load_engine(changed(settings, translate_engine="transformers")), TransformersEngine)
    with pytest.raises(LoadError, match="which the engine csanmt cannot run"):
        load_engine(changed(settings, translate_engine="csanmt"))
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.engines.ctranslate2")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert isinstance(load_engine(settings), TransformersEngine)
    assert "trying transformers" in caplog.text


@pytest.fixture
def csanmt(settings: Settings) -> Path:
    """Return a CSANMT folder as the model directory's own translator."""
    return Path(shutil.copytree(ROOT / "tests" / "data" / "csanmt" / "absolute", settings.model_dir / "translate"))


@pytest.mark.usefixtures("csanmt")
def test_a_csanmt_folder_uses_its_engine(settings: Settings) -> None:
    assert isinstance(load_engine(settings), CsanmtEngine)
    with pytest.raises(LoadError, match="which the engine ctranslate2 cannot run"):
        load_engine(changed(settings, translate_engine="ctranslate2"))


@pytest.mark.usefixtures("csanmt")
def test_csanmt_without_its_extra_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.engines.csanmt", raising=False)
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.csanmt.tokenizer", raising=False)
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(LoadError, match=r"pip install 'triton-diffusers\[csanmt\]'"):
        load_engine(settings)


@pytest.mark.parametrize("broken", ["configuration.json", "bpe.zh", "tf_ckpts/ckpt-0.index"])
def test_the_default_translator_takes_over_from_a_folder_that_cannot_run(
    broken: str, settings: Settings, csanmt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_translator(settings.model_copy(update={"model_dir": csanmt})).translate([Field("prompt", "红苹果")])
    (csanmt / broken).write_bytes(b"nonsense")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        translator = load_translator(changed(settings, translate_engine="csanmt"))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(csanmt) in warning
    assert warning.endswith(f"{settings.translator_dir} translates instead")
    assert translator.translate([Field("prompt", "红苹果")]) == expected


@pytest.mark.usefixtures("csanmt")
def test_without_the_extra_the_default_translator_takes_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.engines.csanmt", raising=False)
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.csanmt.tokenizer", raising=False)
    monkeypatch.setitem(sys.modules, "jieba", None)
    (outcome,) = load_translator(settings).translate([Field("prompt", "红苹果")])
    assert isinstance(outcome, Translation)
    assert "pip install 'triton-diffusers[csanmt]'" in caplog.text


def test_a_server_without_a_translator_rejects_chinese_only(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        translator = load_translator(changed(settings, translator_dir=tmp_path / "none"))
    assert "no translation" in caplog.text
    passed, refused = translator.translate([Field("prompt", "a cat"), Field("negative_prompt", "猫")])
    assert passed == Translation("a cat")
    assert isinstance(refused, NotTranslated)
    assert str(tmp_path) not in str(refused)
