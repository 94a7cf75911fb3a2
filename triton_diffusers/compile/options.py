"""Options of a build."""

from __future__ import annotations

from dataclasses import dataclass

SYNONYMS = {"bf16": "bfloat16", "fp32": "float32", "f32": "float32", "i8": "int8"}
PRECISIONS = ("float32", "bfloat16", "int8")

# Minimum mean PSNR of whole images against the eager engine's, in dB. Rounding adds up over the steps, for some images
# much more than for others, so these are values of experience; one image may be worse by PSNR_SPREAD. Broken artifacts
# come nowhere near: below 10 dB, images have little in common.
MIN_PSNR = {"float32": 40.0, "bfloat16": 30.0, "int8": 15.0}
PSNR_SPREAD = {"float32": 10.0, "bfloat16": 10.0, "int8": 4.0}


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of a build; ``model`` and ``out`` are as the user wrote them.

    ``out`` is empty for the model directory itself, ``precision`` for the engine's default here; ``side`` is 0 for the
    model's own, ``min_psnr`` None for the precision's. ``force`` rebuilds an artifact that fits. ``wait`` waits for
    another build of the same artifact and uses its result, instead of failing.
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
