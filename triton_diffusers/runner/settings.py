"""Options of a runner."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Options of a runner.

    ``name`` is the same at each start, and no other runner's. ``max_images`` bounds the images of the jobs that it
    holds. Jobs still running ``exit_seconds`` after a stop are handed back.
    """

    name: str
    triton: str = "127.0.0.1:8001"
    pool: str = DEFAULT_POOL
    max_images: int
    exit_seconds: float = 15.0
