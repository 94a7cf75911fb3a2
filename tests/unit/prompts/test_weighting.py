"""Attention weights of hidden states."""

from __future__ import annotations

import pytest
import torch

from triton_diffusers.prompts import apply_weights

TOKENS, WIDTH = 5, 3


def states(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_weights_follow_the_rule_exactly() -> None:
    plain, weights = states(), [1.0, 1.3, 0.5, 0.0, 1.0]
    numbers = plain[0].tolist()
    weighted = [[weight * number for number in row] for weight, row in zip(weights, numbers, strict=True)]
    correction = sum(map(sum, numbers)) / sum(map(sum, weighted))
    expected = torch.tensor([[[number * correction for number in row] for row in weighted]])
    torch.testing.assert_close(apply_weights(plain, weights), expected)


def test_the_mean_stays() -> None:
    plain = states() - 2.0
    assert apply_weights(plain, [1, 2, 3, 0.1, 1]).mean().item() == pytest.approx(plain.mean().item())


def test_weights_of_one_change_no_bit() -> None:
    plain = states()
    assert apply_weights(plain, [1.0] * TOKENS) is plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_precision_stays(dtype: torch.dtype) -> None:
    plain = states().to(dtype)
    weighted = apply_weights(plain, [1, 1.5, 1, 1, 1])
    assert weighted.dtype == dtype
    torch.testing.assert_close(weighted, apply_weights(plain.float(), [1, 1.5, 1, 1, 1]).to(dtype))


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param([1, -3, 1, 1, 1], id="the sign changes"),
        pytest.param([1, 1, -1, 1, 1], id="the mean becomes zero"),
        pytest.param([1, 1.00001, -1, 1, 1], id="the mean becomes very small"),
    ],
)
def test_meaningless_mean_is_not_restored(weights: list[float]) -> None:
    plain = torch.tensor([1.0, 1.0, 3.0, 0.5, 0.5])[None, :, None].expand(1, TOKENS, WIDTH)
    if weights[1] == -3:
        plain = torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0])[None, :, None].expand(1, TOKENS, WIDTH)
    torch.testing.assert_close(apply_weights(plain, weights), plain * torch.tensor(weights)[:, None])


def test_states_of_mean_zero_are_weighted_all_the_same() -> None:
    plain = torch.zeros(1, TOKENS, WIDTH)
    assert torch.equal(apply_weights(plain, [1, 2, 1, 1, 1]), plain)
