"""What a caller can ask for besides the prompt, as keywords that editors complete and type checkers check."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PilImage

    from triton_diffusers_client.image import EncodedImage

# An encoded image, one of a result's, a path or an open file, a URL, a Pillow image, or uint8 pixels (height, width,
# channels).
Picture: TypeAlias = "bytes | EncodedImage | str | PathLike[str] | BinaryIO | PilImage | np.ndarray[Any, Any]"


class Options(TypedDict, total=False):
    """Keywords of ``Client.generate`` and ``Client.submit``: the wire's field names.

    What is left out (or None) has the server's default, except: ``task_id`` is a new random id, ``seed`` a random
    number picked here (so that a retry draws the same picture), ``return_images`` is true, and ``func_name`` is
    ``inpaint`` with a mask, ``outpaint`` with ``expand`` and ``i2i`` with an image. An image may be a URL, which the
    server fetches.

    With any of the options from ``controlnet_path`` on, the request goes to the counterpart of the model that has
    ControlNets: ``sd_controlnet`` for ``sd_base``, ``ensemble_controlnet`` for ``ensemble``. There an ``image`` without
    a ``control_image`` is what controls, unless ``func_name`` says otherwise.
    """

    task_id: str | None
    negative_prompt: str
    func_name: Literal["t2i", "i2i", "inpaint", "outpaint"]
    steps: int
    cfg_scale: float
    width: int
    height: int
    seed: int | str | None
    image_num: int
    scheduler: str
    output_format: Literal["png", "jpeg", "webp"]
    return_images: bool
    use_base64: bool
    clip_skip: int
    image: Picture
    image_base64: str
    image_link: str
    mask: Picture
    mask_base64: str
    mask_link: str
    resize_mode: int
    denoising_strength: float
    keep_unmasked: bool
    expand: Sequence[int]
    expand_type: Literal["copy", "reflect"]
    lora_path: str | Sequence[str]
    lora_attn: float | Sequence[float]
    use_translate: bool | None
    profile: Literal["", "exact", "cached", "guidance-interval", "fast"]
    save_dir: str
    embed_metadata: bool
    safety_action: Literal["", "blacken", "flag"]
    timeout_seconds: float
    controlnet_path: str | Sequence[str]
    process_func: str | Sequence[str]
    control_scale: float | Sequence[float]
    control_start: float | Sequence[float]
    control_end: float | Sequence[float]
    control_image: Picture | Sequence[Picture]
    control_image_base64: str | Sequence[str]
    control_image_link: str | Sequence[str]
    return_control_image: bool
