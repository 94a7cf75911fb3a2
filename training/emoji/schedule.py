"""Learning rate schedules, counted in iterations so that a paused run loses nothing."""

import math


def warmup_cosine(step: int, total: int, peak: float, warmup: int = 100, floor: float = 0.02) -> float:
    """Return the learning rate at `step` of `total`: linear up to `peak`, then a cosine down to `floor * peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))
