"""CSANMT folders against outputs of ModelScope's own pipeline; see ``tests/data/csanmt/make.py``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.settings import Settings
from triton_diffusers.translate.csanmt.tensor_bundle import BundleError, TensorBundle
from triton_diffusers.translate.engines.csanmt import CsanmtEngine
from triton_diffusers.translate.engines.protocol import max_output_tokens

DATA = ROOT / "tests" / "data" / "csanmt"
FOLDERS = ["absolute", "relative", "shared"]
PREFIX = Path("tf_ckpts") / "ckpt-0"
SHARD = Path("tf_ckpts") / "ckpt-0.data-00000-of-00001"
INDEX = Path("tf_ckpts") / "ckpt-0.index"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shared cache for jieba's dictionary, which takes a second to make."""
    return tmp_path_factory.mktemp("csanmt") / "cache"


@pytest.fixture
def load(cache: Path) -> Callable[[Path], CsanmtEngine]:
    return lambda folder: CsanmtEngine.load(folder, Settings(cache_dir=cache))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of a CSANMT folder to change."""
    return Path(shutil.copytree(DATA / "absolute", tmp_path / "translate"))


def reconfigure(folder: Path, part: str, **changes: Any) -> None:
    path = folder / "configuration.json"
    configuration = json.loads(path.read_text(encoding="utf-8"))
    configuration[part].update(changes)
    path.write_text(json.dumps(configuration), encoding="utf-8")


@pytest.mark.parametrize("name", FOLDERS)
def test_translations_match_modelscope(name: str, load: Callable[[Path], CsanmtEngine]) -> None:
    expected = json.loads((DATA / name / "translations.json").read_text(encoding="utf-8"))
    assert len(set(expected.values())) > 10, "texts have different translations"
    engine = load(DATA / name)
    assert {text: engine.translate([text])[0] for text in expected} == expected
    assert dict(zip(expected, engine.translate(list(expected)), strict=True)) == expected, "independent of other texts"


def test_translations_are_bounded_in_any_folder(copy: Path, load: Callable[[Path], CsanmtEngine]) -> None:
    reconfigure(copy, "model", max_decoded_trg_len=10_000)
    (copy / "trg_vocab.txt").write_text("END\n" + "word\n" * 33, encoding="utf-8")
    engine = load(copy)
    for text in ("苹果", "草地上的猫", "在蓝色背景上的一只红色的猫"):
        tokens = len(engine._tokenizer.encode(text)) + 1
        assert len(engine.translate([text])[0].split()) <= max_output_tokens(tokens)


def test_the_dictionary_is_cached_in_the_private_cache(load: Callable[[Path], CsanmtEngine], cache: Path) -> None:
    load(DATA / "shared")
    assert list(cache.iterdir()), "not in the temporary directory"


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("model", {"beam_size": 0}, r"configuration\.json: model\.beam_size is invalid"),
        ("model", {"layer_preproc": "rms_norm"}, r"model\.layer_preproc is invalid"),
        ("model", {"num_decoder_layers": 3}, "no variable NmtModel/decoder/layer_2/"),
        ("model", {"num_heads": 5}, "cannot be loaded"),
        ("model", {"src_vocab_size": 40}, "vocabularies of .* expected"),
        ("model", {"src_vocab_size": 3}, "has more than 3 lines"),
        ("model", {"shared_source_target_embedding": True}, "no variable NmtModel/Shared_Embedding/Weights"),
        ("preprocessor", {"tgt_lang": "es"}, r"preprocessor\.tgt_lang is invalid"),
        ("preprocessor", {"src_bpe": {"file": "missing"}}, "missing"),
        ("dataset", {"src_vocab": {"file": "../../secret"}}, "expected a file within the folder"),
        ("dataset", {"src_vocab": {"file": "/etc/passwd"}}, "expected a file within the folder"),
    ],
)
def test_an_inconsistent_folder_is_an_error(
    part: str, changes: dict[str, Any], reason: str, copy: Path, load: Callable[[Path], CsanmtEngine]
) -> None:
    reconfigure(copy, part, **changes)
    with pytest.raises(LoadError, match=reason) as raised:
        load(copy)
    assert str(copy) in str(raised.value)


@pytest.mark.parametrize("file", [SHARD, INDEX, Path("bpe.zh"), Path("trg_vocab.txt"), Path("configuration.json")])
def test_a_missing_file_is_an_error(file: Path, copy: Path, load: Callable[[Path], CsanmtEngine]) -> None:
    (copy / file).unlink()
    with pytest.raises(LoadError, match=file.name):
        load(copy)


@pytest.mark.parametrize("file", [SHARD, INDEX])
def test_a_truncated_file_is_an_error(file: Path, copy: Path, load: Callable[[Path], CsanmtEngine]) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError, match=file.name):
        load(copy)


def test_a_bundle_has_the_variables_of_the_graph() -> None:
    bundle = TensorBundle(DATA / "relative" / PREFIX)
    assert bundle["NmtModel/Softmax"].shape == (34, 16)
    assert bundle["NmtModel/Softmax"].dtype == np.float32
    assert sum(bundle[name].nbytes for name in bundle) == (DATA / "relative" / SHARD).stat().st_size


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_index_is_an_error_or_reads_within_its_files(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        shutil.copytree(DATA / "shared", folder)
    index = bytearray((DATA / "shared" / INDEX).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        index[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    (folder / INDEX).write_bytes(index)
    try:
        bundle = TensorBundle(folder / PREFIX)
        for name in bundle:
            assert bundle[name].nbytes <= (folder / SHARD).stat().st_size
    except (BundleError, OSError):
        pass
