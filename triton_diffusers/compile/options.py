"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass

SYNONYMS = {"bf16": "bfloat16", "fp32": "float32", "f32": "float32", "i8": "int8"}
PRECISIONS = ("float32", "bfloat16", "int8")

# Least PSNR in dB, of whole pictures beside the eager ones, on average. Rounding moves pictures a little at every step,
# and some much more than others, so that what a precision can reach is a matter of experience; a single picture may
# stay below by the spread. An artifact that is wrong comes nowhere near; below 10 dB, pictures have little in common.
LEAST_PSNR = {"float32": 40.0, "bfloat16": 30.0, "int8": 15.0}
SPREAD_PSNR = {"float32": 10.0, "bfloat16": 10.0, "int8": 4.0}


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """``model`` and ``out`` are as the user wrote them; ``out`` is empty for the model directory itself.

    ``precision`` is empty for the engine's default here, ``side`` 0 for the model's own, ``min_psnr`` None for the
    precision's. ``force`` builds anew what is there and fits. ``wait`` waits for another build of the same artifact
    and uses what it has built, instead of refusing.
    """

    model: str
    engine: str
    precision: str = ""
    out: str = ""
    steps: int = 12
    side: int = 0
    min_psnr: float | None = None
    force: bool = False
    wait: bool = False
    dry_run: bool = False
