"""The kinds of values that stand for an image in a request."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PilImage

    from triton_diffusers_client.image import EncodedImage

# An encoded image, one of a result's, a path or an open file, a URL, a Pillow image, or uint8 pixels (height, width,
# channels).
ImageInput: TypeAlias = "bytes | EncodedImage | str | PathLike[str] | BinaryIO | PilImage | np.ndarray[Any, Any]"
