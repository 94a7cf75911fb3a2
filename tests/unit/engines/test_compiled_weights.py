"""Weights of a compiled engine's model: unreadable, changed, or kept on the disk."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.conftest import ROOT
from tests.unit.engine_calls import encode
from tests.unit.engines.test_compiled import MAPS, NEAR, noise, tokens
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.engines.compiled import load_compiled
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.errors import EngineFailure
from triton_diffusers.settings import Settings


def test_unreadable_model_fails_before_loading_graphs(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not a model directory"):
        load_compiled(Settings(model_dir=tmp_path), LoadingGraphs("openvino", "float32", {"unet": tmp_path}, {}))


@pytest.mark.skipif(not MAPS.exists(), reason="/proc is Linux's")
def test_token_embeddings_are_on_disk(tmp_path: Path) -> None:
    settings = Settings(model_dir=ROOT / "models" / "emoji", close_safety=True, cache_dir=tmp_path)
    compiled = load_compiled(settings, LoadingGraphs("openvino", "float32", {}, {}))
    assert f" {tmp_path}/" in MAPS.read_text()
    del compiled
    gc.collect()
    assert f" {tmp_path}/" not in MAPS.read_text()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_token_embeddings_keep_their_initial_values(tmp_path: Path, precision: str) -> None:
    """Keep the embeddings that the tokenizer was built for, also in weights loaded later."""
    (tmp_path / "base_model").symlink_to(ROOT / "models" / "emoji" / "base_model")
    (tmp_path / "embeddings").mkdir()
    save_file({"x": noise(2, 192)}, tmp_path / "embeddings" / "sunny.safetensors")
    settings = Settings(model_dir=tmp_path, dtype="float32", close_safety=True)
    expected = EagerEngine(load_components(settings))
    compiled = load_compiled(settings, LoadingGraphs("openvino", precision, {}, {}))
    shutil.rmtree(tmp_path / "embeddings")
    word, plain = tokens(expected, "a sunny apple", "a red apple")
    assert tokens(compiled, "a sunny apple") == [word]  # type: ignore[arg-type]
    near = NEAR if precision == "float32" else {"rtol": 0, "atol": 0.2}
    torch.testing.assert_close(encode(compiled, [word], 1), encode(expected, [word], 1), **near)
    assert torch.equal(encode(compiled, [plain], 1), encode(expected, [plain], 1))


def test_changed_weights_are_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "emoji" / "base_model", tmp_path / "base_model")
    settings = Settings(model_dir=tmp_path, close_safety=True)
    compiled = load_compiled(settings, LoadingGraphs("openvino", "float32", {}, {}))
    config = tmp_path / "base_model" / "vae" / "config.json"
    content = config.read_text()
    config.write_text(f"{content}\n")  # changes the fingerprint, but can be loaded
    with pytest.raises(EngineFailure, match=r"weights cannot be loaded$") as caught:
        compiled.decode(noise(4, 8, 8))
    assert "have changed since the graphs were compiled" in str(caught.value.__cause__)
    config.write_text(content)
    assert compiled.decode(noise(4, 8, 8)).shape == (3, 64, 64)
