"""Sampling sizes: the requested size, or one near the model's own size, enlarged afterwards."""

from __future__ import annotations

from math import log, sqrt

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.settings import Settings

# Relative to the model's own size. Beyond these, models repeat their subject or show too little of it.
_MAX_AREA, _MIN_AREA = 2.25, 0.25
_MAX_SIDE = 2.0
_ASPECT_RATIO_WEIGHT = 4.0  # relative to that of the area


class DrawnSizes:
    """Sampling sizes of one model, by the ``enlarge`` setting or its ``drawing.json``."""

    def __init__(self, engine: Engine, settings: Settings, file: DrawingFile) -> None:
        self._multiple = engine.family.latents.multiple
        self._native = engine.family.defaults.side
        self._enlarges = file.enlarge if settings.enlarge == "auto" else settings.enlarge == "on"

    def drawn(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the sampling width and height in pixels."""
        if self.is_enlarged(request):
            return self._nearest(*request.size)
        width, height = (-(-side // self._multiple) * self._multiple for side in request.size)
        return width, height

    def is_enlarged(self, request: GenerationRequest) -> bool:
        """Return True if images are sampled near the model's own size and enlarged."""
        width, height = request.size
        return self._enlarges and width * height > self._native**2

    def warnings(self, request: GenerationRequest) -> list[str]:
        """Return warnings about the requested size."""
        (width, height), drawn = request.size, "{}×{}".format(*self.drawn(request))
        if self.is_enlarged(request):
            return [f"width × height: {width}×{height} is generated at {drawn}, near this model's size, and enlarged"]
        warnings = []
        if self.drawn(request) != request.size:
            reason = "a multiple of the model's latents"
            warnings.append(f"width × height: {width}×{height} is generated at {drawn}, {reason}, and resized")
        area = width * height / self._native**2
        if not _MIN_AREA <= area <= _MAX_AREA or max(width, height) > _MAX_SIDE * self._native:
            native = f"{self._native}×{self._native}"
            warnings.append(
                f"width × height: {width}×{height} is far from {native}, this model's training size; expect poor images"
            )
        return warnings

    def _nearest(self, width: int, height: int) -> tuple[int, int]:
        """Return the size closest to the model's own area with about the given aspect ratio."""
        if width < height:
            drawn_height, drawn_width = self._nearest(height, width)
            return drawn_width, drawn_height
        ratio = width / height

        def distance(size: tuple[int, int]) -> float:
            shape, area = size[0] / size[1] / ratio, size[0] * size[1] / self._native**2
            return _ASPECT_RATIO_WEIGHT * abs(log(shape)) + abs(log(area))

        scaled = self._native / sqrt(ratio)
        heights = {max(1, round(scaled / self._multiple) + step) for step in (-2, -1, 0, 1, 2)}
        return min(
            ((max(1, round(rows * ratio)) * self._multiple, rows * self._multiple) for rows in sorted(heights)),
            key=distance,
        )
