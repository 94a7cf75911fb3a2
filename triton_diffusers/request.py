"""What is asked for and what comes of it, as typed values; nothing here knows the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Function(StrEnum):
    """What a request makes. The values are the wire's names (``func_name``)."""

    TEXT_TO_IMAGE = "t2i"
    IMAGE_TO_IMAGE = "i2i"
    INPAINT = "inpaint"
    OUTPAINT = "outpaint"


class OutputFormat(StrEnum):
    """How a picture is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request, valid in every field. Sizes are pixels; image *i* is drawn from ``seed + i``."""

    task_id: str
    prompt: str
    negative_prompt: str = ""
    function: Function = Function.TEXT_TO_IMAGE
    steps: int = 50
    guidance_scale: float = 7.0
    width: int
    height: int
    seed: int = 0
    image_num: int = 1
    scheduler: str = "DPM++ 2M"
    output_format: OutputFormat = OutputFormat.PNG

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on (a scale of 1 is no guidance)."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """What a finished request gives. ``images`` (encoded as asked) and ``is_nsfw`` have one entry for each image."""

    request: GenerationRequest
    images: tuple[bytes, ...]
    is_nsfw: tuple[bool, ...]
    optimized: bool
    warnings: tuple[str, ...]
    queue_seconds: float
    run_seconds: float
