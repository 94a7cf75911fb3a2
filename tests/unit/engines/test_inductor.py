"""Inductor's packages compared with PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.protocol import IncompatibleWeights
from triton_diffusers.engines.graphs import Graph, Input
from triton_diffusers.engines.graphs.graph import ROWS

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
    # PyTorch's warnings about itself.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`isinstance.treespec:FutureWarning"),
]


class Folded(nn.Module):
    """Network whose kernel is an input, and whose rows and height are dynamic."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(5, 3, 1)

    def forward(self, latents: torch.Tensor, kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        folded = nn.functional.conv2d(latents, kernel, padding=1)
        return self.mix(folded), folded.mean(dim=(2, 3))


def test_inductor_matches_pytorch_for_all_shapes_and_kernels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Folded().eval()
    latents = Input("latents", torch.zeros(4, 4, 6, 5), {0: ROWS, 2: torch.export.Dim("height", min=2, max=64)})
    kernel = Input("layer.weight", torch.zeros(5, 4, 3, 3), {})
    compiler = COMPILERS["inductor"]()
    compiler.compile(Graph("folded", module, (latents,), ("mixed", "mean"), (kernel,)), tmp_path, "float32")
    for seed, (rows, height) in enumerate(((1, 6), (3, 9), (2, 2))):
        kernels = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
        bound = compiler.bind(tmp_path, "float32", {"layer.weight": kernels})
        given = torch.randn(rows, 4, height, 5)
        for call in (given, given.contiguous(memory_format=torch.channels_last)):
            with torch.inference_mode():
                expected = module(call, kernels)
            torch.testing.assert_close(bound(call), expected, rtol=0, atol=1e-5)
    mismatch = r"layer.weight is \(6, 4, 3, 3\), expected \(5, 4, 3, 3\) as compiled"
    with pytest.raises(IncompatibleWeights, match=mismatch):
        compiler.bind(tmp_path, "float32", {"layer.weight": torch.randn(6, 4, 3, 3)})


@pytest.mark.parametrize(("found", "first"), [(False, "float32"), (True, "bfloat16")])
def test_inductor_default_precision_suits_the_processor(
    found: bool, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": found, "avx512_vnni": True})
    assert COMPILERS["inductor"]().precisions[0] == first
