"""OpenVINO compared with PyTorch for UNets shaped like Stable Diffusion's versions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from tests import lora_files
from triton_diffusers.adapters.lora import lora_modules
from triton_diffusers.engines.compilers import COMPILERS, GraphCache
from triton_diffusers.engines.compilers.bound_weights import BoundGraph, in_order, write_shapes
from triton_diffusers.engines.graphs import Graph, Input, lora_layouts, no_residuals
from triton_diffusers.engines.graphs.graph import ROWS
from triton_diffusers.engines.graphs.lora import lora_applied, lora_inputs
from triton_diffusers.engines.graphs.ops import add_residual
from triton_diffusers.engines.graphs.unet import unet_graph

STATUS, CPU_INFO = Path("/proc/self/status"), Path("/proc/cpuinfo")
STYLES: dict[str, dict[str, Any]] = {
    "1.5": {"attention_head_dim": 2, "use_linear_projection": False},
    "2.1": {"attention_head_dim": [2, 4], "use_linear_projection": True},
}


def tiny(style: str) -> Graph:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        norm_num_groups=8,
        **STYLES[style],
    )
    return unet_graph(unet.eval())


def inputs(graph: Graph, rows: int, groups: int, side: tuple[int, int], rank: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, 4, *side), (rows,), (rows, 77, 24))
    latents, times, states = (torch.randn(shape, generator=generator) for shape in shapes)
    loras = lora_files.random_inputs(graph.module.layouts, groups, rank)
    return latents, times.abs() * 300, states, *loras, *no_residuals(graph.module.unet)


def test_openvino_matches_pytorch_for_all_shapes(tmp_path: Path) -> None:
    """Use the newer transformer style; the emoji model has the older one."""
    graph = tiny("2.1")
    compiler = COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    compiled = compiler.load(tmp_path, "float32")
    for rows, groups, side, rank in (
        (1, 1, (16, 16), 0),
        (2, 1, (8, 12), 4),
        (4, 2, (13, 7), 16),
        (3, 3, (9, 5), 1),
        (6, 3, (1, 2), 2),
        (2, 1, (16, 16), 0),
    ):
        call = inputs(graph, rows, groups, side, rank)
        with torch.inference_mode():
            expected = graph.module(*call)
        torch.testing.assert_close(compiled(*call), expected, rtol=0, atol=1e-4)


def test_lora_on_every_layer_counts() -> None:
    graph = tiny("1.5")
    call = inputs(graph, 2, 1, (8, 8), 1)
    latents, times, states, *_ = call
    with torch.inference_mode():
        plain = graph.module.unet(latents, times, states).sample
        none = [tensor for layout in graph.module.layouts for tensor in layout.empty()]
        empty, _ = graph.module(latents, times, states, *none, *call[7:])
        changed = [
            graph.module(latents, times, states, *loras, *call[7:])[0]
            for loras in ((*call[3:5], *none[2:]), (*none[:2], *call[5:7]))
        ]
    torch.testing.assert_close(empty, plain, rtol=0, atol=1e-5)  # a projection is another product of the same
    assert all((one - plain).abs().max() > 0.01 for one in changed)
    pointwise, others = (set(layout.sizes) for layout in graph.module.layouts)
    assert {"unet.time_embedding.linear_1", "unet.mid_block.attentions.0.proj_in"} <= pointwise
    assert {"unet.conv_in", "unet.down_blocks.0.downsamplers.0.conv", "unet.up_blocks.0.upsamplers.0.conv"} <= others
    assert pointwise | others == {path for path, _ in lora_modules("unet", graph.module.unet)}


class Small(nn.Module):
    """Network of a few layers that is traced quickly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(4, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 4, 1))
        self.layouts = lora_layouts("unet", self.net)

    def forward(self, latents: torch.Tensor, *packed: torch.Tensor) -> torch.Tensor:
        with lora_applied(self.layouts, "unet", self.net, packed):
            output: torch.Tensor = self.net(latents)
        return output


def small() -> Graph:
    module = Small()
    latents = Input(
        "latents", torch.zeros(4, 4, 6, 5), {0: ROWS, 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    )
    return Graph("unet", module, (latents, *lora_inputs(module.layouts)), ("prediction",))


def small_inputs(rows: int, groups: int, rank: int) -> tuple[torch.Tensor, ...]:
    latents = torch.randn(rows, 4, 16, 12, generator=torch.Generator().manual_seed(rows))
    return latents, *lora_files.random_inputs(Small().layouts, groups, rank)


def relative_error(computed: torch.Tensor, expected: torch.Tensor) -> float:
    return float((computed - expected).pow(2).mean().sqrt() / expected.std())


def test_low_precision_is_near_and_its_file_half_as_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, compiler = small(), COMPILERS["openvino"]()
    if "bfloat16" not in compiler.precisions:
        if not CPU_INFO.exists() or "avx512f" not in CPU_INFO.read_text():
            pytest.skip("this processor has no bfloat16")
        # OpenVINO supports it without hardware support, slowly.
        monkeypatch.setattr(type(compiler), "_has_bfloat16", True)
    call = small_inputs(2, 1, 4)
    with torch.inference_mode():
        expected = graph.module(*call)
    compiler.compile(graph, tmp_path, "bfloat16")
    (computed,) = compiler.load(tmp_path, "bfloat16")(*call)
    assert 1e-5 < relative_error(computed, expected) < 0.05
    weights = sum(parameter.numel() for parameter in graph.module.parameters())
    assert (tmp_path / "graph.bin").stat().st_size < 2.5 * weights


def test_cached_graph_is_loaded_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, compiler = small(), COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    cache = GraphCache(tmp_path / "kept" / "unet", "checksums")
    call = small_inputs(2, 1, 4)
    (expected,) = compiler.load(tmp_path, "float32")(*call)
    assert torch.equal(compiler.load(tmp_path, "float32", cache)(*call)[0], expected)
    weights = graph.module.net[2].weight.detach().numpy().tobytes()
    assert weights in (tmp_path / "graph.bin").read_bytes()
    assert weights not in cache.file.read_bytes()

    def fail(*arguments: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(type(compiler), "_compiled", fail)
    kept = compiler.load(tmp_path, "float32", cache)
    assert torch.equal(kept(*call)[0], expected)
    for rows, groups, rank in ((3, 3, 1), (1, 1, 0)):
        call = small_inputs(rows, groups, rank)
        with torch.inference_mode():
            assert relative_error(kept(*call)[0], graph.module(*call)) < 1e-5
    with pytest.raises(AssertionError, match="compiled again"):
        compiler.load(tmp_path, "float32", replace(cache, content="others"))


@pytest.mark.parametrize("kept", [b"", b"nothing that OpenVINO knows"])
def test_invalid_cached_graph_is_recompiled_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes
) -> None:
    graph, compiler = small(), COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    cache = GraphCache(tmp_path / "kept", "checksums")
    whole = GraphCache.read
    monkeypatch.setattr(GraphCache, "read", lambda self, made_with: kept)
    call = small_inputs(1, 1, 2)
    (expected,) = compiler.load(tmp_path, "float32")(*call)
    assert torch.equal(compiler.load(tmp_path, "float32", cache)(*call)[0], expected)
    monkeypatch.setattr(GraphCache, "read", whole)
    monkeypatch.setattr(type(compiler), "_compiled", None)
    assert torch.equal(compiler.load(tmp_path, "float32", cache)(*call)[0], expected)


def test_uncacheable_graph_is_still_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("cannot be exported")

    compiler = COMPILERS["openvino"]()
    compiler.compile(small(), tmp_path, "float32")
    monkeypatch.setattr(openvino.CompiledModel, "export_model", fail)
    cache = GraphCache(tmp_path / "kept", "checksums")
    assert compiler.load(tmp_path, "float32", cache)(*small_inputs(1, 1, 2))[0].shape == (1, 4, 16, 12)
    assert not cache.file.exists()


def test_cache_of_another_processor_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, compiler = small(), COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    cache = GraphCache(tmp_path / "kept", "checksums")
    compiler.load(tmp_path, "float32", cache)
    before = cache.file.read_bytes()
    other = COMPILERS["openvino"]()
    monkeypatch.setattr(other, "_processor", "another processor")
    other.load(tmp_path, "float32", cache)
    assert cache.file.read_bytes() != before


def test_signals_work_after_compilers_are_freed() -> None:
    """Send a signal after OpenVINO's plug-in was unloaded, which frees its thread's signal stack."""
    code = """
import os, signal, threading
from triton_diffusers.engines.compilers import COMPILERS

signal.signal(signal.SIGTERM, lambda number, frame: print("heard"))
compilers = [COMPILERS["openvino"]() for _ in range(3)]
for compiler in compilers:
    assert compiler.precisions
del compiler
del compilers[0]
thread = threading.Thread(target=compilers.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


class Added(nn.Module):
    """Two layers with a residual between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(4, 64, 3, padding=1), nn.Conv2d(64, 4, 3, padding=1)

    def forward(self, latents: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.last(add_residual(nn.functional.silu(self.first(latents)), residual))
        return output


def added() -> Graph:
    rows, height, width = ROWS, torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    free = {axis: torch.export.Dim(f"residual_{axis}", min=1) for axis in range(4)}
    return Graph(
        "unet",
        Added(),
        (
            Input("latents", torch.zeros(4, 4, 6, 5), {0: rows, 2: height, 3: width}),
            Input("residual_0", torch.zeros(4, 64, 6, 5), free),
        ),
        ("prediction",),
    )


@pytest.mark.skipif(not STATUS.exists(), reason="there is no Linux /proc")
def test_release_frees_working_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(STATUS.read_text().partition("VmRSS:")[2].split()[0]) // 1024

    graph, compiler = added(), COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    compiled = compiler.load(tmp_path, "float32")
    compiled.release()  # before any call
    call = torch.randn(1, 4, 1024, 1024), torch.zeros(1, 1, 1, 1)  # 268 MB after the first layer
    (first,) = compiled(*call)
    held = resident()
    compiled.release()
    assert held - resident() > 200
    (again,) = compiled(*call)
    assert torch.equal(first, again)


class Bare(nn.Module):
    """Network whose weights are inputs."""

    def forward(self, latents: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(latents, kernel, bias, padding=1)


def bare() -> Graph:
    """Return a network whose number of outputs is known only with its weights."""
    outs = torch.export.Dim("outs", min=2, max=64)
    weights = Input("layer.weight", torch.zeros(5, 4, 3, 3), {0: outs}), Input("layer.bias", torch.zeros(5), {0: outs})
    latents = Input("latents", torch.zeros(4, 4, 6, 5), {0: ROWS, 2: torch.export.Dim("height")})
    return Graph("bare", Bare(), (latents,), ("output",), weights)


@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_bound_graphs_of_several_weights_match_pytorch(tmp_path: Path, precision: str, atol: float) -> None:
    compiler = COMPILERS["openvino"]()
    compiler.compile(bare(), tmp_path, precision)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    latents = torch.randn(3, 4, 9, 5)
    made = []
    for outs, dtype in ((7, torch.float32), (3, torch.bfloat16)):
        weights = {
            "layer.bias": torch.randn(outs, dtype=dtype),
            "layer.weight": torch.randn(outs, 4, 3, 3, dtype=dtype),
        }
        made.append((compiler.bind(tmp_path, precision, weights), weights))
    for graph, weights in made:
        expected = Bare()(latents, weights["layer.weight"].float(), weights["layer.bias"].float())
        torch.testing.assert_close(graph(latents)[0], expected, rtol=0, atol=atol)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_binding_weights_of_another_network_is_an_error(tmp_path: Path) -> None:
    compiler = COMPILERS["openvino"]()
    compiler.compile(bare(), tmp_path, "float32")
    with pytest.raises(ValueError, match="the graph has no weights other"):
        compiler.bind(tmp_path, "float32", {"other": torch.ones(1)})
    with pytest.raises(RuntimeError):
        compiler.bind(tmp_path, "float32", {"layer.weight": torch.ones(2, 5, 3, 3)})


def test_bound_graph_matches_pytorch(tmp_path: Path) -> None:
    """Pass the weights at each call, for compilers that cannot compile them in."""
    graph = bare()
    write_shapes(graph, tmp_path)
    weights = {"layer.bias": torch.randn(5), "more": torch.ones(1), "layer.weight": torch.randn(5, 4, 3, 3)}
    bound = BoundGraph(lambda *inputs: (graph.module(*inputs),), in_order(weights, tmp_path))
    latents = torch.randn(1, 4, 6, 5)
    expected = Bare()(latents, weights["layer.weight"], weights["layer.bias"])
    assert torch.equal(bound(latents)[0], expected)
    with pytest.raises(KeyError, match=r"layer\.weight"):
        in_order({"layer.bias": torch.ones(5)}, tmp_path)


def test_missing_compiler_package_is_named() -> None:
    with pytest.raises(ImportError, match="torch_blade"):
        COMPILERS["blade"]()
