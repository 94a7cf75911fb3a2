"""Which folder and which engine a server translates with."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.errors import NotTranslated
from triton_diffusers.settings import Settings
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


def test_neither_is_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="translate"):
        find_folder(changed(settings, translator_dir=tmp_path / "none"))


def test_kinds(written_marian: Path, tmp_path: Path) -> None:
    assert kind_of(written_marian) is FolderKind.MARIAN
    configuration = {"framework": "tensorflow", "task": "translation", "pipeline": {"type": "csanmt-translation"}}
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    assert kind_of(tmp_path) is FolderKind.CSANMT


def test_folders_that_are_no_translator(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no translator that is known"):
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


def test_engines(settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(load_engine(settings), CTranslate2Engine)
    assert isinstance(load_engine(changed(settings, translate_engine="transformers")), TransformersEngine)
    with pytest.raises(LoadError, match="which the engine csanmt cannot run"):
        load_engine(changed(settings, translate_engine="csanmt"))
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.engines.ctranslate2")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert isinstance(load_engine(settings), TransformersEngine)
    assert "trying transformers" in caplog.text


def test_csanmt_without_its_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    own = settings.model_dir / "translate"
    own.mkdir()
    (own / "configuration.json").write_text('{"pipeline": {"type": "csanmt-translation"}}')
    monkeypatch.delitem(sys.modules, "triton_diffusers.translate.engines.csanmt", raising=False)
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(LoadError, match=r"pip install 'triton-diffusers\[csanmt\]'"):
        load_engine(changed(settings, translate_engine="csanmt"))


def test_a_folder_that_may_bring_code_is_not_run_by_itself(settings: Settings) -> None:
    own = settings.model_dir / "translate"
    own.mkdir()
    (own / "configuration.json").write_text('{"pipeline": {"type": "csanmt-translation"}}')
    with pytest.raises(LoadError, match="TRANSLATE_ENGINE=csanmt"):
        load_engine(settings)


def test_a_server_without_a_translator_serves_what_is_not_chinese(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        translator = load_translator(changed(settings, translator_dir=tmp_path / "none"))
    assert "no translation" in caplog.text
    passed, refused = translator.translate([Field("prompt", "a cat"), Field("negative_prompt", "猫")])
    assert passed == Translation("a cat")
    assert isinstance(refused, NotTranslated)
    assert str(tmp_path) not in str(refused)
