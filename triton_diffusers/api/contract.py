"""The contract: tables of every input and output of the models; ``CONTRACTS`` maps models to their tables.

Tensors bear the names of the API's JSON fields, so that a request's JSON can be posted to Triton's ``generate`` as it
is. A field's type, default, bounds and choices are written only here: the ``config.pbtxt`` files, the checks of
``api.decode``, the reference page, the JSON schema and the client's generated files are made from these tables.

Every input but ``task_id`` and ``prompt`` is optional, and sending an input's ``default`` is the same as leaving it
out: a client that always sends the full set lets Triton batch its requests together. An input whose absence means
something that no value can express is a list (``many``), and absent is the empty list.

Whole numbers are INT64, since Triton's JSON parser wraps a number that is too large for INT32 instead of refusing it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from triton_diffusers.api.request import (
    DEFAULT_QUALITY,
    Fill,
    Function,
    MaskChannel,
    OutputFormat,
    ResizeMode,
    SafetyAction,
)
from triton_diffusers.preprocess import PREPROCESSORS
from triton_diffusers.sampling.profiles import PROFILES

if TYPE_CHECKING:
    from triton_diffusers.settings import Settings  # slow to import; models import this table first

DataType = Literal["STRING", "BYTES", "INT64", "FP32", "BOOL"]
"""``STRING`` is UTF-8 text, ``BYTES`` anything; Triton calls both ``TYPE_STRING``."""

Value = str | bytes | int | float | bool
Default = Value | tuple[Value, ...]
Number = int | float


@dataclass(frozen=True, slots=True)
class Input:
    """One field of a request.

    ``default`` is what an absent field means, and is always valid; a list field's is a tuple. ``default_help`` explains
    a default that stands for something else. Each value lies between ``minimum`` and ``maximum`` (``limit_settings``:
    the least of these settings is the maximum; ``signed``: the minimum is the negative maximum), or is one of
    ``choices``. ``length_setting`` names the setting that bounds the characters of a text, or the values of a list.
    """

    name: str
    datatype: DataType
    default: Default
    help: str
    default_help: str = ""
    required: bool = False
    minimum: Number | None = None
    maximum: Number | None = None
    limit_settings: tuple[str, ...] = ()
    signed: bool = False
    choices: tuple[str, ...] = ()
    length_setting: str = ""

    @property
    def many(self) -> bool:
        """True if the field is a list."""
        return isinstance(self.default, tuple)

    def bounds(self, settings: Settings) -> tuple[Number, Number] | None:
        """Return the least and the largest valid value; None if the field has no bounds."""
        limits = [getattr(settings, name) for name in self.limit_settings]
        maximum = min(limits) if limits else self.maximum
        if maximum is None:
            return None
        minimum = -maximum if self.signed else self.minimum
        return (0 if minimum is None else minimum), maximum

    def max_length(self, settings: Settings) -> int | None:
        """Return the most characters of a text, or values of a list; None if the field has no such limit."""
        return int(getattr(settings, self.length_setting)) if self.length_setting else None


@dataclass(frozen=True, slots=True)
class Output:
    """One field of a reply; ``many``: a list with one entry for each image (or an empty one)."""

    name: str
    datatype: DataType
    help: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """The inputs and outputs of a model."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @property
    def of_ensemble(self) -> Contract:
        """Return the contract of an ensemble that ends with this model.

        All tensors of an ensemble share one namespace, in which an output with an input's name would be that input as it
        was sent: such outputs get a prefix.
        """
        taken = {field.name for field in self.inputs}
        outputs = (
            replace(output, name=f"reply_{output.name}") if output.name in taken else output for output in self.outputs
        )
        return Contract(tuple(field for field in self.inputs if field != TRANSLATOR_WARNINGS), tuple(outputs))


INPUTS: tuple[Input, ...] = (
    Input("task_id", "STRING", "", "Id chosen by the caller; echoed, and part of result names. Letters, digits, `._-`.", required=True),
    Input("prompt", "STRING", "", "Text to draw, in the [syntax](prompts.md) of AUTOMATIC1111's web UI.", required=True, length_setting="max_prompt_chars"),
    Input("negative_prompt", "STRING", "", "Text to avoid; of no effect without guidance.", length_setting="max_prompt_chars"),
    Input("func_name", "STRING", "t2i", "Text to image, image to image, inpainting or outpainting.", choices=tuple(Function)),
    Input("steps", "INT64", 0, "Sampling steps.", "the model's own (50 for Stable Diffusion 1 and 2)", minimum=1, limit_settings=("max_steps",)),
    Input("cfg_scale", "FP32", 0.0, "Guidance scale; 1 turns guidance off and halves the work. [Distilled models](checkpoints.md#guidance-distilled-models) take it as an input.", "the model's own (7 for Stable Diffusion 1 and 2)", minimum=1.0, maximum=30.0),
    Input("width", "INT64", 0, "Pixels. Sampled at the next multiple of 8 and resized back, with a warning.", "the model's own size (512 for SD 1.x)", minimum=16, limit_settings=("max_side",)),
    Input("height", "INT64", 0, "Pixels, like `width`.", "the model's own size", minimum=16, limit_settings=("max_side",)),
    Input("seed", "STRING", "", "Whole number, 0 to 2⁶⁴-1, as text. Image *i* uses `seed + i`.", "random"),
    Input("image_num", "INT64", 1, "Images to make.", minimum=1, limit_settings=("max_image_num", "max_images_in_flight")),
    Input("scheduler", "STRING", "", "Sampler, by its name in A1111, ComfyUI, k-diffusion or diffusers; see the list of schedulers.", "the model's own (`DPM++ 2M` for Stable Diffusion 1 and 2)"),
    Input("output_format", "STRING", "png", "Encoding of the images.", choices=tuple(OutputFormat)),
    Input("output_quality", "INT64", DEFAULT_QUALITY, "Quality of JPEG and WebP images; of no effect on PNG.", minimum=1, maximum=100),
    Input("return_images", "BOOL", False, "Return the encoded images as bytes in `images`. Refused in plain JSON, which cannot carry bytes: use `use_base64`."),
    Input("use_base64", "BOOL", False, "Return the encoded images in `images_base64` (URL-safe alphabet)."),
    Input("clip_skip", "INT64", 1, "Layer of the text encoder to use, counted from the end: 1 is the last one, 2 the one before.", minimum=1, maximum=24),
    Input("image", "BYTES", b"", "Input image of `i2i`, `inpaint` and `outpaint`, and control image of `sd_controlnet`, as an encoded file (PNG, JPEG, WebP, AVIF, GIF, BMP, or HEIC where the server has it). Not for JSON, which cannot carry bytes."),
    Input("image_base64", "STRING", "", "Input image as base64 (standard or URL-safe) or a data URL. Give exactly one of the three."),
    Input("image_link", "STRING", "", "Input image as an `http(s)` URL to fetch, or a data URL."),
    Input("mask", "BYTES", b"", "Mask of `inpaint`, as an encoded file: white is repainted."),
    Input("mask_base64", "STRING", "", "Mask as base64. Give exactly one of the three."),
    Input("mask_link", "STRING", "", "Mask as a URL to fetch."),
    Input("mask_channel", "STRING", "luminance", "Part of the mask that counts: in `luminance` white is repainted, in `alpha` what is transparent.", choices=tuple(MaskChannel)),
    Input("resize_mode", "INT64", 0, "Input image to `width`×`height`: 0 stretch, 1 scale and crop, 2 pad with white (scaled down to fit if it is larger).", minimum=min(ResizeMode), maximum=max(ResizeMode)),
    Input("denoising_strength", "FP32", 0.55, "How much of the input image is drawn again: the part of `steps` that is made, at least one step. 0 returns the input image, fitted to the size.", minimum=0.0, maximum=1.0),
    Input("keep_unmasked", "BOOL", True, "`inpaint`, `outpaint`: paste the unmasked part back as it was, with a soft edge."),
    Input("expand", "INT64", (), "`outpaint`: pixels to add to `width`×`height`, `[left, right, up, down]`.", "128 each", minimum=0, limit_settings=("max_side",)),
    Input("expand_type", "STRING", "copy", "`outpaint`: initial content of the added pixels: `copy` repeats the edge, `reflect` mirrors.", choices=tuple(Fill)),
    Input("lora_path", "STRING", (), "LoRA files, relative to the model directory.", length_setting="max_loras"),
    Input("lora_attn", "FP32", (), "Weight of each LoRA, or one for all.", "0.75", signed=True, limit_settings=("max_lora_weight",)),
    Input("use_translate", "BOOL", (), "`ensemble…`: translate Chinese text of the prompts. `sd_base` and `sd_controlnet` refuse `true`.", "the service's setting"),
    Input("profile", "STRING", "", "[Sampling profile](profiles.md).", "the server's setting", choices=tuple(PROFILES)),
    Input("save_dir", "STRING", "result", "Folder of the result store."),
    Input("store_images", "BOOL", True, "Keep the images in the result store, if the server has one. Otherwise they are only in the reply, with `return_images` or `use_base64`."),
    Input("embed_metadata", "BOOL", True, "Write the request's parameters into the images."),
    Input("safety_action", "STRING", "", "Treatment of images that the [safety checker](safety.md) flags: `blacken`, or `flag` (returned as they are, with `is_nsfw`), where the server allows it.", "the server's setting", choices=tuple(SafetyAction)),
    Input("timeout_seconds", "FP32", 0.0, "Cancel the job this long after its arrival, even if the caller still waits. `infer` callers can send Triton's own `timeout` (microseconds) instead; the shorter one counts.", "never", minimum=0.0, maximum=math.inf),
)  # fmt: skip

OUTPUTS: tuple[Output, ...] = (
    Output("success", "INT64", "1. (A request that fails is answered with a Triton error instead.)"),
    Output("task_id", "STRING", "The request's `task_id`."),
    Output("seed", "STRING", "The seed of the first image."),
    Output("prompt", "STRING", "The prompt as it went into the model."),
    Output("images", "BYTES", "Encoded images (bytes), with `return_images`.", many=True),
    Output("images_base64", "STRING", "Encoded images, with `use_base64`.", many=True),
    Output("image_url", "STRING", "URL of each image; empty if the server stores none.", many=True),
    Output(
        "oss_url",
        "STRING",
        "Location of each image, as `oss://…`, `s3://…` or `file://…`; empty if the server stores none.",
        many=True,
    ),
    Output(
        "is_nsfw",
        "BOOL",
        "True: the safety checker flagged the image, which is black unless `safety_action` is `flag`.",
        many=True,
    ),
    Output(
        "parameters",
        "STRING",
        "The fields that make the first image again, as JSON; those that the request left out have the model's own values.",
    ),
    Output("use_blade", "BOOL", "An optimised engine made the images."),
    Output("profile", "STRING", "The sampling profile that was used."),
    Output(
        "warnings",
        "STRING",
        "Deviations from the request: words cut from a prompt, fields that the model does not have, …",
        many=True,
    ),
    Output("queue_seconds", "FP32", "Time from arrival to the first step."),
    Output("run_seconds", "FP32", "Time from the first step to the last image."),
)

# Additional fields of `sd_controlnet`.
CONTROL_INPUTS: tuple[Input, ...] = (
    Input("controlnet_path", "STRING", (), "ControlNets, folders or files relative to the model directory; an empty path: the model directory's own, `controlnet/`.", "the model directory's own", length_setting="max_controlnets"),
    Input("process_func", "STRING", (), "[Preprocessor](adapters.md#preprocessors) that makes the control image, one for all ControlNets or one each.", "the image as it is", choices=tuple(PREPROCESSORS)),
    Input("control_scale", "FP32", (), "Strength of each ControlNet, one for all or one each.", "1", minimum=0.0, maximum=10.0),
    Input("control_start", "FP32", (), "Part of the steps at which each begins to control, one for all or one each.", "0", minimum=0.0, maximum=1.0),
    Input("control_end", "FP32", (), "Part of the steps at which each ends to control, more than its `control_start`.", "1", minimum=0.0, maximum=1.0),
    Input("control_image", "BYTES", (), "Control images, as encoded files, one for all or one each. Not for JSON, which cannot carry bytes.", "`image`"),
    Input("control_image_base64", "STRING", (), "Control images as base64. Give at most one of the three."),
    Input("control_image_link", "STRING", (), "Control images as URLs to fetch."),
    Input("return_control_image", "BOOL", False, "Return the images that the preprocessors made, in `control_images_base64`."),
)  # fmt: skip
CONTROL_OUTPUTS: tuple[Output, ...] = (
    Output(
        "control_images_base64",
        "STRING",
        "The control image of each ControlNet (PNG, URL-safe alphabet), with `return_control_image`.",
        many=True,
    ),
)

# Fields that the translator changes, and its inputs. Its outputs replace the inputs of the same names.
TRANSLATED = ("prompt", "negative_prompt")
TRANSLATOR_INPUTS: tuple[Input, ...] = tuple(field for field in INPUTS if field.name in (*TRANSLATED, "use_translate"))
TRANSLATOR_OUTPUTS: tuple[Output, ...] = (
    Output("prompt", "STRING", "The prompt in English; text that is not Chinese is unchanged."),
    Output("negative_prompt", "STRING", "The negative prompt in English."),
    Output("warnings", "STRING", "Text that was not translated.", many=True),
)
# How the translator's warnings reach the reply of an ensemble.
TRANSLATOR_WARNINGS = Input("translator_warnings", "STRING", (), "Set by ensembles: the translator's warnings, repeated in `warnings`.")  # fmt: skip

# Inputs of the models that make images.
INPUT_BY_NAME = {field.name: field for field in (*INPUTS, *CONTROL_INPUTS, TRANSLATOR_WARNINGS)}

# Headers that `serve` lets Triton forward as request parameters. Every HTTP caller sends the first and every gRPC
# caller the second, but Triton forwards none of a `generate` request: a request without them is plain JSON.
FORWARDED_HEADERS = ("host", "user-agent")

# The parameter of a ``config.pbtxt`` that holds a model's probe, a request as JSON.
PROBE_PARAMETER = "probe"
# The parameter that holds a request to try, as JSON; the launcher offers it.
EXAMPLE_PARAMETER = "example"
# The parameter of models whose requests an engine process runs; the launcher starts it.
ENGINE_PARAMETER = "engine_process"
_PARAMETERS = frozenset({PROBE_PARAMETER, EXAMPLE_PARAMETER, ENGINE_PARAMETER})


def settings_among(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Return the operator's settings among the parameters of a ``config.pbtxt``."""
    # Upper-case ones are the Python backend's own.
    return {name: value for name, value in parameters.items() if name.islower() and name not in _PARAMETERS}


# A healthy model process answers a request with this ``func_name`` at once; the launcher's watchdog sends it.
PROBE = "probe"

JOBS_INPUTS: tuple[Input, ...] = (
    Input("action", "STRING", "list", "`list` (all known jobs), `progress` or `cancel` (both of one task).", choices=("list", "progress", "cancel")),
    Input("task_id", "STRING", "", "The task; required by `progress` and `cancel`."),
    Input("preview", "BOOL", False, "With `progress`: ask for a small image of the first unfinished image as it stands."),
)  # fmt: skip

# One entry for each job, the newest first. Several jobs may have one task_id; `progress` and `cancel` take them all.
JOBS_OUTPUTS: tuple[Output, ...] = (
    Output("task_id", "STRING", "The task.", many=True),
    Output("model", "STRING", "The model that runs it.", many=True),
    Output("state", "STRING", "`queued`, `running`, `succeeded`, `failed` or `cancelled`.", many=True),
    Output("step", "INT64", "Sampling steps done, of all images together.", many=True),
    Output("steps", "INT64", "Sampling steps to do, of all images together; 0 while unknown.", many=True),
    Output("image_num", "INT64", "Images requested.", many=True),
    Output("images_done", "INT64", "Images finished.", many=True),
    Output("elapsed_seconds", "FP32", "Time since arrival; of a finished job, until its end.", many=True),
    Output(
        "error_msg",
        "STRING",
        "The error of a failed job; of a running job, the reason why it waits (an unreachable store); else empty.",
        many=True,
    ),
    Output("preview", "STRING", "JPEG as base64 (URL-safe), if requested and available; else empty.", many=True),
)

_BASE = Contract((*INPUTS, TRANSLATOR_WARNINGS), OUTPUTS)
_CONTROLNET = Contract((*_BASE.inputs, *CONTROL_INPUTS), (*OUTPUTS, *CONTROL_OUTPUTS))

# By model name.
CONTRACTS: Mapping[str, Contract] = {
    "sd_base": _BASE,
    "sd_controlnet": _CONTROLNET,
    "translator": Contract(TRANSLATOR_INPUTS, TRANSLATOR_OUTPUTS),
    "ensemble": _BASE.of_ensemble,
    "ensemble_controlnet": _CONTROLNET.of_ensemble,
    "jobs": Contract(JOBS_INPUTS, JOBS_OUTPUTS),
}
