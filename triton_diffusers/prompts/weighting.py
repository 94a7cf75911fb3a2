"""Attention weights of hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triton_diffusers.prompts.syntax import MAX_WEIGHT


def apply_weights(states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Apply one weight per token to the hidden states (1, tokens, width) of one chunk.

    AUTOMATIC1111's rule: with states z and weights w, z'[t, i] = w[t] · z[t, i]. The result is z' · mean(z) / mean(z'),
    with means over all tokens (including start, end and padding) and features of the chunk. It is computed in float32
    and returned in the states' precision.

    The quotient of the means estimates the growth of the states. For positive terms it lies between 1/10 and 10, the
    limits of weights. If it does not (the weighted mean is near zero or changes sign), it is meaningless and z' is
    returned. If all weights are 1, the states are returned unchanged.
    """
    if all(weight == 1.0 for weight in weights):
        return states
    plain = states.float()
    weighted = plain * torch.tensor(weights, device=states.device).unsqueeze(-1)
    before, after = plain.mean().item(), weighted.mean().item()
    correction = before / after if after != 0.0 else 0.0
    if 1 / MAX_WEIGHT <= correction <= MAX_WEIGHT:
        weighted = weighted * correction
    return weighted.to(states.dtype)
