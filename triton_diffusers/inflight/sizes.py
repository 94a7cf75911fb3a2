"""Sizes at which images are drawn: those asked for, or the model's own where it cannot draw larger ones."""

from __future__ import annotations

from math import log, sqrt

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.settings import Settings

# Width and height that every VAE and UNet of the family takes without a remainder.
_SMALLEST_MULTIPLE = 8
# Areas beside the model's own that are far from it: beyond, models repeat their subject, or draw too little to see.
_MAX_AREA, _MIN_AREA = 2.25, 0.25
_MAX_SIDE = 2.0
_SHAPE_BEFORE_AREA = 4.0  # how much more a wrong aspect ratio counts than a wrong area


class DrawnSizes:
    """The sizes at which one model draws, as the setting says or its ``drawing.json``."""

    def __init__(self, engine: Engine, settings: Settings, file: DrawingFile) -> None:
        self._multiple = max(engine.pixels_per_latent, _SMALLEST_MULTIPLE)
        self._native = engine.native_side
        self._enlarges = file.enlarge if settings.enlarge == "auto" else settings.enlarge == "on"

    def drawn(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the width and height, in pixels, that the latents of a request's images stand for."""
        if self.is_enlarged(request):
            return self._nearest(*request.size)
        width, height = (-(-side // self._multiple) * self._multiple for side in request.size)
        return width, height

    def is_enlarged(self, request: GenerationRequest) -> bool:
        """Return True if the request's images are drawn at the model's own size and enlarged."""
        width, height = request.size
        return self._enlarges and width * height > self._native**2

    def warnings(self, request: GenerationRequest) -> list[str]:
        """Return what to tell the caller about a request's size."""
        (width, height), drawn = request.size, "{}×{}".format(*self.drawn(request))
        if self.is_enlarged(request):
            return [f"width × height: {width}×{height} is drawn at {drawn}, about this model's own size, and enlarged"]
        warnings = []
        if self.drawn(request) != request.size:
            warnings.append(
                f"width × height: {width}×{height} is drawn at {drawn}, a multiple of the model's latents, and resized"
            )
        area = width * height / self._native**2
        if not _MIN_AREA <= area <= _MAX_AREA or max(width, height) > _MAX_SIDE * self._native:
            native = f"{self._native}×{self._native}"
            warnings.append(
                f"width × height: {width}×{height} is far from {native}, the size that this model was trained on; "
                "expect poor images"
            )
        return warnings

    def _nearest(self, width: int, height: int) -> tuple[int, int]:
        """Return the size nearest to the model's own area that has about the same aspect ratio."""
        if width < height:
            drawn_height, drawn_width = self._nearest(height, width)
            return drawn_width, drawn_height
        ratio = width / height

        def distance(size: tuple[int, int]) -> float:
            shape, area = size[0] / size[1] / ratio, size[0] * size[1] / self._native**2
            return _SHAPE_BEFORE_AREA * abs(log(shape)) + abs(log(area))

        scaled = self._native / sqrt(ratio)
        heights = {max(1, round(scaled / self._multiple) + step) for step in (-2, -1, 0, 1, 2)}
        return min(
            ((max(1, round(rows * ratio)) * self._multiple, rows * self._multiple) for rows in sorted(heights)),
            key=distance,
        )
