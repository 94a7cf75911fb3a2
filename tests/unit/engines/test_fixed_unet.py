"""Graphs of one size, compared with the eager engine, and the rows that they run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from tests import lora_files
from tests.unit.conftest import ROOT
from tests.unit.engine_calls import predict
from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET, Lora, LoraLayer, LoraSet
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.compiled import CompiledEngine, load_compiled
from triton_diffusers.engines.compilers import COMPILERS, CompiledGraph
from triton_diffusers.engines.compilers.cache import GraphCache
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs import no_residuals
from triton_diffusers.settings import Settings

SIZE = (104, 144)  # 13 latents wide, which is not divisible by two
NEAR = {"rtol": 0, "atol": 1e-4}


class Counted:
    """Graph that records the rows of its calls."""

    def __init__(self, graph: CompiledGraph) -> None:
        self._graph = graph
        self.rows: list[int] = []
        self.released = False

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.rows.append(len(inputs[0]))
        return self._graph(*inputs)

    def release(self) -> None:
        self.released = True
        self._graph.release()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        model_dir=ROOT / "models" / "emoji",
        dtype="float32",
        runtime_dir=tmp_path_factory.mktemp("runtime"),
        fixed_sizes=(SIZE,),
    )


@pytest.fixture(scope="module")
def loaded(settings: Settings, folders: Mapping[str, Path]) -> CompiledEngine:
    return load_compiled(settings, LoadingGraphs("openvino", "float32", {UNET: folders[UNET]}, {}))


@pytest.fixture
def compiled(loaded: CompiledEngine, monkeypatch: pytest.MonkeyPatch) -> CompiledEngine:
    counted = {name: Counted(graph) for name, graph in loaded._graphs.items()}
    monkeypatch.setattr(loaded, "_graphs", counted)
    return loaded


@pytest.fixture(scope="module")
def eager(components: Components) -> EagerEngine:
    return EagerEngine(components)


def rows_of(compiled: CompiledEngine) -> dict[str, list[int]]:
    counted: Mapping[str, Counted] = compiled._graphs  # type: ignore[assignment]
    return {name: graph.rows for name, graph in counted.items()}


def call(rows: int, height: int = 18, width: int = 13, tokens: int = 77) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    latents = torch.randn(rows, 4, height, width, generator=generator)
    return latents, torch.linspace(999.0, 1.0, rows), torch.randn(rows, tokens, 192, generator=generator)


def of_rank_2(eager: EagerEngine, model: str) -> LoraSet:
    weights = lora_files.random_weights(eager.lora_targets, 2, 0, lambda path: path.startswith(f"{model}."))
    layers = {path: LoraLayer(*pair) for path, pair in weights.items() if "conv" not in path and "sampler" not in path}
    return LoraSet.of([(Lora((model, 1, 1), layers), 1.0)])


@pytest.mark.parametrize("rows", [2, 6])
def test_fixed_graph_runs_pairs_of_rows(compiled: CompiledEngine, eager: EagerEngine, rows: int) -> None:
    for computed, expected in zip(predict(compiled, *call(rows)), predict(eager, *call(rows)), strict=True):
        torch.testing.assert_close(computed, expected, **NEAR)
    assert rows_of(compiled) == {"unet": [], "unet-13x18": [2] * (rows // 2)}


@pytest.mark.parametrize(
    "inputs", [call(1), call(3), call(2, 13, 18), call(2, 18, 14), call(2, tokens=154)], ids=lambda i: str(i[0].shape)
)
def test_other_rows_do_not_use_the_fixed_graph(
    compiled: CompiledEngine, eager: EagerEngine, inputs: Sequence[torch.Tensor]
) -> None:
    torch.testing.assert_close(predict(compiled, *inputs)[0], predict(eager, *inputs)[0], **NEAR)
    assert rows_of(compiled) == {"unet": [len(inputs[0])], "unet-13x18": []}


def test_rows_with_lora_or_controlnet_do_not_use_the_fixed_graph(compiled: CompiledEngine, eager: EagerEngine) -> None:
    plain, expected = predict(compiled, *call(2))[0], predict(eager, *call(2), [of_rank_2(eager, UNET)] * 2)[0]
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(predict(compiled, *call(2), [of_rank_2(eager, UNET)] * 2)[0], expected, **NEAR)
    residuals = tuple(residual + 0.5 for residual in no_residuals(eager._components.denoiser))
    computed = predict(compiled, *call(2), residuals=residuals)[0]
    assert (computed - plain).abs().max() > 0.01
    assert rows_of(compiled) == {"unet": [2, 2], "unet-13x18": [2]}


def test_text_encoder_lora_still_uses_the_fixed_graph(compiled: CompiledEngine, eager: EagerEngine) -> None:
    predict(compiled, *call(2), [of_rank_2(eager, TEXT_ENCODER), None])
    assert rows_of(compiled) == {"unet": [], "unet-13x18": [2]}


def test_fixed_graph_releases_memory_with_the_others(compiled: CompiledEngine) -> None:
    compiled._release(*compiled._graphs)
    assert all(graph.released for graph in compiled._graphs.values())  # type: ignore[attr-defined]


def test_fixed_graph_is_cached_beside_the_dynamic_one(
    settings: Settings, folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> CompiledEngine:
        caches = {UNET: GraphCache(tmp_path / UNET, "checksums")}
        return load_compiled(settings, LoadingGraphs("openvino", "float32", {UNET: folders[UNET]}, caches))

    expected = predict(load(), *call(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["unet", "unet-13x18"]
    monkeypatch.setattr(COMPILERS["openvino"], "_compiled", None)
    again = load()
    assert sorted(again._graphs) == ["unet", "unet-13x18"]
    assert all(torch.equal(*pair) for pair in zip(predict(again, *call(2)), expected, strict=True))


def test_sizes_with_equal_latents_share_a_fixed_graph(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed: list[str] = []
    monkeypatch.setattr(LoadingGraphs, "specialise", lambda graphs, name, fixed_name, shapes: fixed.append(fixed_name))
    several = settings.model_copy(update={"fixed_sizes": ((104, 144), (100, 137), (144, 104))})
    load_compiled(several, LoadingGraphs("openvino", "float32", {}, {}))
    assert fixed == ["unet-13x18", "unet-18x13"]


def test_compiler_without_fixed_shapes_uses_the_dynamic_graph(
    settings: Settings,
    folders: Mapping[str, Path],
    eager: EagerEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(COMPILERS["openvino"], "fixes_shapes", False)
    with caplog.at_level(logging.INFO):
        engine = load_compiled(settings, LoadingGraphs("openvino", "float32", {UNET: folders[UNET]}, {}))
    assert sorted(engine._graphs) == ["unet"]
    assert "openvino: fixed sizes are unsupported for unet" in caplog.text
    torch.testing.assert_close(predict(engine, *call(2))[0], predict(eager, *call(2))[0], **NEAR)
