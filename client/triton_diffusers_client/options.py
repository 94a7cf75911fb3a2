"""The options of a request, as keywords that editors complete and type checkers check."""

# Made from triton_diffusers/api/ by `make generated`; do not edit.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from triton_diffusers_client.image_input import ImageInput


class Options(TypedDict, total=False):
    """Keywords of ``Client.generate`` and ``submit``: the wire's field names.

    An option that is left out (or None) has the server's default, except: ``task_id`` is a new random id, ``seed`` a
    random number chosen here (so that a retry draws the same image), ``return_images`` is true, and ``func_name`` is
    ``inpaint`` with a mask, ``outpaint`` with ``expand`` and ``i2i`` with an image. An image may be a URL, which the
    server fetches.

    With any of the options from ``controlnet_path`` on, the request goes to the counterpart of the model that has
    ControlNets: ``sd_controlnet`` for ``sd_base``, ``ensemble_controlnet`` for ``ensemble``. There an ``image`` without
    a ``control_image`` is what controls, unless ``func_name`` says otherwise.

    A gateway has two of its own: ``priority``, the place among the caller's jobs, -100 to 100, higher ones first; and
    ``webhook``, a URL that it calls when the job has ended, or a mapping of ``url`` and the ``events`` that it is for.
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
    output_quality: int
    return_images: bool
    use_base64: bool
    clip_skip: int
    image: ImageInput
    image_base64: str
    image_link: str
    mask: ImageInput
    mask_base64: str
    mask_link: str
    mask_channel: Literal["luminance", "alpha"]
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
    store_images: bool
    embed_metadata: bool
    safety_action: Literal["", "blacken", "flag"]
    timeout_seconds: float
    controlnet_path: str | Sequence[str]
    process_func: str | Sequence[str]
    control_scale: float | Sequence[float]
    control_start: float | Sequence[float]
    control_end: float | Sequence[float]
    control_image: ImageInput | Sequence[ImageInput]
    control_image_base64: str | Sequence[str]
    control_image_link: str | Sequence[str]
    return_control_image: bool
    priority: int
    webhook: str | Mapping[str, str | Sequence[str]]
