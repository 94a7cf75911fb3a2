import pytest
import torch
from torch import nn

from training.emoji.norm import FastGroupNorm, speed_up_group_norms


@pytest.mark.parametrize("shape", [(2, 8, 5, 6), (2, 8, 7)])
@pytest.mark.parametrize("layout", ["plain", "channels_last"])
def test_gradients_are_those_of_group_norm(shape: tuple[int, ...], layout: str) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(shape, requires_grad=True)
    given = x.to(memory_format=torch.channels_last) if layout == "channels_last" and x.ndim == 4 else x
    weights = torch.randn(shape)
    expected = torch.autograd.grad((norm(given) * weights).sum(), [x, norm.weight, norm.bias])
    speed_up_group_norms(norm)
    assert isinstance(norm, FastGroupNorm)
    found = torch.autograd.grad((norm(given) * weights).sum(), [x, norm.weight, norm.bias])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
