"""Names of results in the store."""

from __future__ import annotations

from datetime import datetime

from triton_diffusers.api.request import GenerationRequest, OutputFormat

EXTENSIONS = {OutputFormat.PNG: "png", OutputFormat.JPEG: "jpg", OutputFormat.WEBP: "webp"}


def result_names(request: GenerationRequest, now: datetime, suffix: str = "") -> list[str]:
    """Return the name of each image of a request that is finished ``now``, as a path in the store.

    ``suffix`` distinguishes requests of one ``task_id`` that finish within the same second.
    """
    stem = f"{request.save_dir}/{request.task_id}_{now:%Y%m%d_%H%M%S}{suffix and '-'}{suffix}"
    extension = EXTENSIONS[request.output_format]
    return [f"{stem}_{index}.{extension}" for index in range(request.image_num)]
