"""A finished request as the contract's outputs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from triton_diffusers.api.request import GenerationRequest, GenerationResult


def reply_values(
    request: GenerationRequest, result: GenerationResult, *, return_images: bool, use_base64: bool
) -> dict[str, Any]:
    """Return the value of every output of the generating models."""
    return {
        "success": 1,
        "task_id": request.task_id,
        "seed": str(request.seed),
        "prompt": request.prompt,
        "images": result.images if return_images else (),
        "images_base64": _base64(result.images) if use_base64 else (),
        "control_images_base64": _base64(result.control_images),
        "image_url": result.image_urls,
        "oss_url": result.oss_urls,
        "is_nsfw": result.is_nsfw,
        "parameters": json.dumps(request.to_values(0), ensure_ascii=False),
        "use_blade": result.optimized,
        "profile": request.profile.name,
        "warnings": result.warnings,
        "queue_seconds": result.queue_seconds,
        "run_seconds": result.run_seconds,
    }


def _base64(images: Iterable[bytes]) -> list[bytes]:
    return [base64.urlsafe_b64encode(image) for image in images]
