"""A request and its result as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from triton_diffusers.sampling.profiles import EXACT, Profile
from triton_diffusers.sampling.schedulers import DEFAULT_SCHEDULER

SEEDS = 2**64  # seeds are less than this
DEFAULT_QUALITY = 95  # of JPEG and WebP

# Defaults of Stable Diffusion 1 and 2.
DEFAULT_STEPS = 50
DEFAULT_GUIDANCE_SCALE = 7.0


class Function(StrEnum):
    """The functions of the models. The values are the wire's names (``func_name``)."""

    TEXT_TO_IMAGE = "t2i"
    IMAGE_TO_IMAGE = "i2i"
    INPAINT = "inpaint"
    OUTPAINT = "outpaint"


_WITH_MASK = frozenset({Function.INPAINT, Function.OUTPAINT})


class OutputFormat(StrEnum):
    """The encodings of result images."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class SafetyAction(StrEnum):
    """Treatments of flagged images. The values are the wire's (``safety_action``)."""

    BLACKEN = "blacken"
    FLAG = "flag"


class ResizeMode(IntEnum):
    """Ways to fit an input image to the request's size. The values are the wire's (``resize_mode``)."""

    STRETCH = 0
    CROP = 1
    PAD = 2


class MaskChannel(StrEnum):
    """The parts of a mask that can mark what is repainted. The values are the wire's (``mask_channel``)."""

    LUMINANCE = "luminance"
    ALPHA = "alpha"


class Fill(StrEnum):
    """Initial contents of the pixels that outpainting adds. The values are the wire's (``expand_type``)."""

    COPY = "copy"
    REFLECT = "reflect"


@dataclass(frozen=True, slots=True)
class FromBase64:
    """An encoded image that came as base64; ``data`` is its content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """An image that is still to be fetched; ``url`` is as the caller wrote it."""

    url: str


@dataclass(frozen=True, slots=True)
class DataUrl:
    """An encoded image that came as a data URL in the field for links; ``data`` is its content."""

    data: bytes


# An image that comes with a request: an encoded one, or a link to one. Its type records which of the three fields it
# came in, for error messages.
ImageSource = bytes | FromBase64 | Link | DataUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """Pixels that outpainting adds at each side of the image."""

    left: int
    right: int
    up: int
    down: int
    fill: Fill = Fill.COPY


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA file, by its path relative to the model directory, and the weight that it gets.

    ``only`` names the network that it changes (``unet`` or ``text_encoder``); empty: both.
    """

    path: str
    weight: float
    only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChoice:
    """A ControlNet, and its part in a request.

    ``path`` is relative to the model directory; empty: the model directory's own, ``controlnet/``. ``process`` names
    the preprocessor that makes the control image of ``image``, or of the request's own image if that is None.
    ``start`` and ``end`` are the parts of the steps, 0 to 1, between which it controls.
    """

    path: str
    process: str = "none"
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    image: ImageSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """A model's own values of fields that a request leaves to it; ``side`` is its width and height in pixels."""

    side: int
    steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    scheduler: str = DEFAULT_SCHEDULER


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request, valid in every field. Sizes are pixels; image *i* is drawn from ``seed + i``.

    ``width`` and ``height`` are those of the fitted input image; outpainting adds ``expansion`` to them.
    The ``image`` of text to image is not drawn over: it serves ``controls`` that have no image of their own.
    ``clip_skip`` counts the text encoder's layers from the end: 1 is the last one. The job is cancelled
    ``timeout_seconds`` after its arrival; 0: never.
    """

    task_id: str
    prompt: str
    negative_prompt: str = ""
    function: Function = Function.TEXT_TO_IMAGE
    steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    width: int
    height: int
    seed: int = 0
    image_num: int = 1
    scheduler: str = DEFAULT_SCHEDULER
    output_format: OutputFormat = OutputFormat.PNG
    output_quality: int = DEFAULT_QUALITY
    image: ImageSource | None = None
    mask: ImageSource | None = None
    mask_channel: MaskChannel = MaskChannel.LUMINANCE
    denoising_strength: float = 0.55
    resize_mode: ResizeMode = ResizeMode.STRETCH
    expansion: Expansion | None = None
    keep_unmasked: bool = True
    loras: tuple[LoraChoice, ...] = ()
    controls: tuple[ControlChoice, ...] = ()
    return_control_image: bool = False
    clip_skip: int = 1
    profile: Profile = EXACT
    save_dir: str = "result"
    store_images: bool = True
    embed_metadata: bool = True
    safety_action: SafetyAction = SafetyAction.BLACKEN
    warnings: tuple[str, ...] = ()
    timeout_seconds: float = 0.0

    def to_values(self, index: int) -> dict[str, Any]:
        """Return the API's fields that reproduce image ``index``, without input images and server paths."""
        values: dict[str, Any] = {
            "func_name": self.function.value,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "cfg_scale": self.guidance_scale,
            "width": self.width,
            "height": self.height,
            "seed": str(self.seed_of(index)),
            "scheduler": self.scheduler,
            "clip_skip": self.clip_skip,
            "output_format": self.output_format.value,
            "profile": self.profile.name,
        }
        if self.function is not Function.TEXT_TO_IMAGE:
            values["denoising_strength"] = self.denoising_strength
        if self.has_images:
            values["resize_mode"] = self.resize_mode.value
        if self.function in _WITH_MASK:
            values["keep_unmasked"] = self.keep_unmasked
        if added := self.expansion:
            values |= {"expand": [added.left, added.right, added.up, added.down], "expand_type": added.fill.value}
        if self.loras:
            values |= {
                "lora_path": [lora.path for lora in self.loras],
                "lora_attn": [lora.weight for lora in self.loras],
            }
        if self.controls:
            values |= {
                "controlnet_path": [control.path for control in self.controls],
                "process_func": [control.process for control in self.controls],
                "control_scale": [control.scale for control in self.controls],
                "control_start": [control.start for control in self.controls],
                "control_end": [control.end for control in self.controls],
            }
        return values

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        added = self.expansion or Expansion(left=0, right=0, up=0, down=0)
        return self.width + added.left + added.right, self.height + added.up + added.down

    @property
    def unexpanded_size(self) -> tuple[int, int]:
        """Width and height of the fitted input image."""
        return self.width, self.height

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the encoded images in the request itself."""
        sources = {self.image, self.mask, *(control.image for control in self.controls)}
        brought = [source.data if isinstance(source, FromBase64 | DataUrl) else source for source in sources]
        return sum(len(data) for data in brought if isinstance(data, bytes))

    def seed_of(self, index: int) -> int:
        """Return the seed of image ``index``; the largest seed is followed by 0."""
        return (self.seed + index) % SEEDS

    @property
    def has_images(self) -> bool:
        """True if images come with the request."""
        return self.image is not None or any(control.image is not None for control in self.controls)

    @property
    def links(self) -> dict[str, str]:
        """URLs to fetch, each with the first field that it came in."""
        named = [("image", self.image), ("mask", self.mask)]
        named += [("control_image", control.image) for control in self.controls]
        found: dict[str, str] = {}
        for name, source in named:
            if isinstance(source, Link):
                found.setdefault(source.url, f"{name}_link")
        return found

    @property
    def unchanged(self) -> bool:
        """True if the result is the input image, fitted to the size."""
        return self.function is not Function.TEXT_TO_IMAGE and self.denoising_strength == 0

    @property
    def guided(self) -> bool:
        """True if classifier-free guidance is on (a scale of 1 turns it off)."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """The result of a request. ``images`` (encoded as asked) and ``is_nsfw`` have one entry for each image.

    So have ``image_urls`` and ``oss_urls``, unless the server stores no results. ``control_images`` (PNG) have one for
    each ControlNet, if requested.
    """

    images: tuple[bytes, ...]
    control_images: tuple[bytes, ...] = ()
    is_nsfw: tuple[bool, ...]
    image_urls: tuple[str, ...]
    oss_urls: tuple[str, ...]
    optimized: bool
    warnings: tuple[str, ...]
    queue_seconds: float
    run_seconds: float
