"""Loading an engine beside a running one must not change global state of the process."""

from __future__ import annotations

import pytest
import torch

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.load import load_skeleton
from triton_diffusers.settings import Settings


def test_loading_keeps_pytorchs_default_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a scheduler that steps at that moment would compute in bfloat16, or fail."""
    chosen: list[torch.dtype] = []
    choose = torch.set_default_dtype

    def watched(dtype: torch.dtype) -> None:
        chosen.append(dtype)
        choose(dtype)

    monkeypatch.setattr(torch, "set_default_dtype", watched)
    skeleton = load_skeleton(Settings(model_dir=ROOT / "models" / "emoji"), torch.bfloat16)
    assert set(chosen) <= {torch.float32}
    assert {parameter.dtype for parameter in skeleton.safety_checker.parameters()} == {torch.float32}
    assert skeleton.text_encoder.get_input_embeddings().weight.dtype == torch.bfloat16
