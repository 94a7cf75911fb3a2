"""What attention weights do to text states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triton_diffusers.prompts.syntax import MAX_WEIGHT


def apply_weights(states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Weigh the text states (1, tokens, width) of one chunk by one weight for each token.

    AUTOMATIC1111's rule: with the states z and the weights w, z'[t, i] = w[t] · z[t, i]; the result is
    z' · mean(z) / mean(z'), the means over all tokens (beginning, end and padding too) and all features of the chunk.
    It is computed in float32 and returned in the states' precision.

    The quotient of the means stands for how much larger the states have become. Of positive terms it could not leave
    1/10 … 10, the bounds of weights; where it does (the mean of the weighted states is about zero, or of the other
    sign), it says nothing of their size, and z' is returned as it is. States of which every weight is 1 are returned
    untouched.
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
