"""Transformer projections as matrix products."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from triton_diffusers.engines.graphs.projections import linear_projections


class Convolutions(Exception):
    """Network whose projection is a convolution."""


@pytest.mark.parametrize("linear", [False, True], ids=["of version 1", "of version 2"])
def test_linear_projections_keep_the_result_and_restore_the_module(
    linear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    transformer = Transformer2DModel(
        2, 8, in_channels=16, norm_num_groups=4, cross_attention_dim=12, use_linear_projection=linear
    ).eval()
    pixels, states = torch.randn(2, 16, 5, 3), torch.randn(2, 7, 12)

    def fail(*arguments: object) -> None:
        raise Convolutions

    with torch.inference_mode():
        (expected,) = transformer(pixels, states, return_dict=False)
        with monkeypatch.context() as patched:
            patched.setattr(nn.Conv2d, "forward", fail)
            with linear_projections(nn.Sequential(transformer)):
                (computed,) = transformer(pixels, states, return_dict=False)
        (after,) = transformer(pixels, states, return_dict=False)
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-5)
    assert torch.equal(after, expected)
    assert transformer.use_linear_projection is linear
    assert "forward" not in vars(transformer.proj_in)
