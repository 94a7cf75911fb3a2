"""The input images of a request: read, checked, and fitted to its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from triton_diffusers.api.request import (
    DataUrl,
    FromBase64,
    Function,
    GenerationRequest,
    ImageSource,
    Link,
    MaskChannel,
)
from triton_diffusers.errors import InvalidImage
from triton_diffusers.images.fit import expand, fit, fit_mask
from triton_diffusers.images.paste import soft_edged
from triton_diffusers.images.read import Size, decoding_bytes, read_alpha_mask, read_image, read_mask
from triton_diffusers.settings import Settings

# Bytes per pixel of the result. Pillow's RGB takes 4.
_SOURCE_BYTES = 6  # image, mask and opacity
_CONTROL_BYTES = 19  # a control image before and after its preprocessor, and in float32 for its ControlNet

# Value and rule of a mask with nothing to repaint.
_NO_WHITE = ("all black", "nothing to repaint; white is repainted")
_NO_ALPHA = ("all opaque", "nothing to repaint; transparent parts are repainted")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImages:
    """The input images of a request, all of its ``size``.

    ``image`` is RGB, None for text to image; in ``mask`` (L) white is repainted. ``shown`` (L) is the opacity of the
    generated image over ``image`` in the result, None if it covers all. ``controls`` has one RGB image for each
    ControlNet, not preprocessed; ControlNets with the same image share the object.
    """

    image: Image.Image | None
    mask: Image.Image | None = None
    shown: Image.Image | None = None
    controls: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a request's images take: while one is decoded, and from then until the request's end."""

    decoding: int
    kept: int


class ImageLoader:
    """A loader of requests' input images. ``bodies`` are the fetched bodies of links, by URL."""

    def __init__(self, settings: Settings, bodies: Mapping[str, bytes]) -> None:
        self._settings = settings
        self._bodies = bodies

    def load(self, request: GenerationRequest) -> SourceImages | None:
        """Read, fit and expand; None for a request that takes no image. Raises ``InvalidImage``."""
        if request.function is not Function.TEXT_TO_IMAGE:
            drawn_over = self._drawn_over(request)
            return replace(drawn_over, controls=self._controls(request, drawn_over.image))
        controls = self._controls(request, None)
        return SourceImages(image=None, controls=controls) if controls else None

    def footprint(self, request: GenerationRequest) -> Footprint:
        """Return the memory that the request's images take, judged by their headers.

        Raises:
            InvalidImage: an image is missing, unacceptable, or takes more memory than all requests may together.
        """
        sources = [("image", request.image, request.unexpanded_size), ("mask", request.mask, request.unexpanded_size)]
        sources += [("control_image", control.image, request.size) for control in request.controls]
        width, height = request.size
        per_pixel = len(request.controls) * _CONTROL_BYTES
        if request.function is not Function.TEXT_TO_IMAGE:
            per_pixel += _SOURCE_BYTES
        kept, largest = width * height * per_pixel, 0
        for name, source, target in sources:
            if source is None:
                continue
            field, data = self._encoded(name, source)
            nbytes = decoding_bytes(field, data, self._settings, target)
            if nbytes + kept > self._settings.max_input_megabytes * 1e6:
                limit = f"at most {self._settings.max_input_megabytes:g} MB (max_input_megabytes)"
                raise InvalidImage(field, f"{nbytes / 1e6:.0f} MB to decode", limit)
            largest = max(largest, nbytes)
        return Footprint(decoding=largest, kept=kept)

    def _drawn_over(self, request: GenerationRequest) -> SourceImages:
        size = request.unexpanded_size
        source = self._read("image", request.image, size, read_image)
        image = fit(source, size, request.resize_mode)
        if request.expansion is not None:
            canvas, new = expand(image, request.expansion)
            return SourceImages(image=canvas, mask=new, shown=self._shown(request, new))
        if request.function is not Function.INPAINT:
            return SourceImages(image=image)
        alpha = request.mask_channel is MaskChannel.ALPHA
        sent = self._read("mask", request.mask, size, read_alpha_mask if alpha else read_mask)
        mask = fit_mask(sent, source.size, size, request.resize_mode)
        if not (np.asarray(mask) >= 128).any():
            raise InvalidImage(_field("mask", request.mask), *(_NO_ALPHA if alpha else _NO_WHITE))
        return SourceImages(image=image, mask=mask, shown=self._shown(request, mask))

    @staticmethod
    def _shown(request: GenerationRequest, mask: Image.Image) -> Image.Image | None:
        return soft_edged(mask) if request.keep_unmasked else None

    def _controls(self, request: GenerationRequest, own: Image.Image | None) -> tuple[Image.Image, ...]:
        """Return the control images; ``own`` is the request's own image, if it is fitted already."""
        fitted: dict[ImageSource | None, Image.Image] = {} if own is None else {None: own}
        for control in request.controls:
            if control.image not in fitted:
                name, sent = ("image", request.image) if control.image is None else ("control_image", control.image)
                image = self._read(name, sent, request.size, read_image)
                fitted[control.image] = fit(image, request.size, request.resize_mode)
        return tuple(fitted[control.image] for control in request.controls)

    def _read(
        self,
        name: str,
        source: ImageSource | None,
        target: Size,
        read: Callable[[str, bytes, Settings, Size], Image.Image],
    ) -> Image.Image:
        if source is None:
            raise InvalidImage(name, None, "the request needs one")
        return read(*self._encoded(name, source), self._settings, target)

    def _encoded(self, name: str, source: ImageSource) -> tuple[str, bytes]:
        """Return the field that an image came in, and its file."""
        field = _field(name, source)
        if isinstance(source, Link):
            return field, self._bodies[source.url]
        return field, source if isinstance(source, bytes) else source.data


def _field(name: str, source: ImageSource | None) -> str:
    """Return the field in which an image came."""
    if isinstance(source, Link | DataUrl):
        return f"{name}_link"
    return f"{name}_base64" if isinstance(source, FromBase64) else name
