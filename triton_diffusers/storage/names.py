"""Names of results, and the check of the folder that a request chooses for them."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.request import GenerationRequest, OutputFormat

EXTENSIONS = {OutputFormat.PNG: "png", OutputFormat.JPEG: "jpg", OutputFormat.WEBP: "webp"}

_MOST_BYTES = 200
_PUNCTUATION = frozenset("._- ")
# Letters by their category, which nobody can see: the fillers of Hangul.
_INVISIBLE = frozenset("\u115f\u1160")
_LIMIT = (
    f"a relative path of at most {_MOST_BYTES} bytes, whose parts are letters, digits, '.', '_', '-' and spaces, "
    "with no '.' or space at the start of a part or at its end"
)


def check_save_dir(value: str) -> str:
    """A request's folder in the store, as it was given. Raises ``InvalidRequest`` unless it is one below the root.

    What is allowed is listed rather than what is not: letters and digits of any script in their NFKC form, so that no
    character becomes a separator or a dot when somebody else normalises the path.
    """
    fits = (
        len(value.encode(errors="replace")) <= _MOST_BYTES
        and unicodedata.is_normalized("NFKC", value)
        and all(_is_safe(part) for part in value.split("/"))
    )
    if not fits:
        raise InvalidRequest("save_dir", value, _LIMIT)
    return value


def _is_safe(part: str) -> bool:
    return (
        part != ""
        and part[0] not in ". "
        and part[-1] not in ". "
        and all((char.isalnum() and char not in _INVISIBLE) or char in _PUNCTUATION for char in part)
    )


def result_names(request: GenerationRequest, now: datetime, suffix: str = "") -> list[str]:
    """The name of each image of a request that is finished ``now``, as a path in the store.

    ``suffix`` tells apart two requests with one ``task_id`` that are finished within the same second.
    """
    stem = f"{request.save_dir}/{request.task_id}_{now:%Y%m%d_%H%M%S}{suffix and '-'}{suffix}"
    extension = EXTENSIONS[request.output_format]
    return [f"{stem}_{index}.{extension}" for index in range(request.image_num)]
