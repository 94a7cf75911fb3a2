"""The contract: every input and output of the models, in tables; ``CONTRACTS`` says which are a model's.

Tensors bear the names of the API's JSON fields, so that a request's JSON can be posted to Triton's ``generate`` as it
is. Everything that must agree with the tables is made from them or tested against them: the ``config.pbtxt`` files
(``model_config``), the decoding of requests (``decode``), the SDK's options and the reference page in ``docs/``.

Every input but ``task_id`` and ``prompt`` is optional, and sending an input's ``default`` is the same as leaving it
out: a client that always sends the full set lets Triton batch its requests together. An input whose absence means
something that no value can say is a list (``many``), and absent is the empty list.

Whole numbers are INT64, since Triton's JSON front wraps a number that is too large for INT32 instead of refusing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

DataType = Literal["STRING", "BYTES", "INT64", "FP32", "BOOL"]
"""``STRING`` is UTF-8 text, ``BYTES`` anything; Triton calls both ``TYPE_STRING``."""

Value = str | bytes | int | float | bool
Default = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Input:
    """One field of a request. ``default`` is what an absent field means; a list field's is a tuple."""

    name: str
    datatype: DataType
    default: Default
    help: str
    required: bool = False

    @property
    def many(self) -> bool:
        """Whether the field is a list."""
        return isinstance(self.default, tuple)


@dataclass(frozen=True, slots=True)
class Output:
    """One field of a reply; ``many``: a list with one entry for each image (or an empty one)."""

    name: str
    datatype: DataType
    help: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """What a model takes and gives."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    @property
    def of_ensemble(self) -> Contract:
        """That of an ensemble which ends with the model.

        All tensors of an ensemble share one namespace, where an output that bears an input's name would be that input,
        as it was sent: such outputs have a prefix there.
        """
        taken = {field.name for field in self.inputs}
        outputs = (
            replace(output, name=f"reply_{output.name}") if output.name in taken else output for output in self.outputs
        )
        return Contract(tuple(field for field in self.inputs if field != TRANSLATOR_WARNINGS), tuple(outputs))


INPUTS: tuple[Input, ...] = (
    Input("task_id", "STRING", "", "Id chosen by the caller; echoed, and part of result names. Letters, digits, `._-`.", required=True),
    Input("prompt", "STRING", "", "What to draw, in the [syntax](prompts.md) of AUTOMATIC1111's web UI.", required=True),
    Input("negative_prompt", "STRING", "", "What to avoid; of no effect without guidance."),
    Input("func_name", "STRING", "t2i", "`t2i`, `i2i`, `inpaint` or `outpaint`."),
    Input("steps", "INT64", 50, "Sampling steps, 1 to `max_steps` (150)."),
    Input("cfg_scale", "FP32", 7.0, "Guidance scale, 1 to 30; 1 turns guidance off and halves the work. [Distilled models](checkpoints.md#guidance-distilled-models) take it as an input."),
    Input("width", "INT64", 0, "Pixels, 16 to `max_side`; 0: the model's own size (512 for SD 1.x). Sampled at the next multiple of 8 and resized back, with a warning."),
    Input("height", "INT64", 0, "Pixels, like `width`."),
    Input("seed", "STRING", "", "Whole number, 0 to 2⁶⁴-1, as text; empty: random. Image *i* uses `seed + i`."),
    Input("image_num", "INT64", 1, "Images to make, 1 to `max_image_num` (8)."),
    Input("scheduler", "STRING", "DPM++ 2M", "Sampler, by its name in A1111, ComfyUI, k-diffusion or diffusers; see the list of schedulers."),
    Input("output_format", "STRING", "png", "`png`, `jpeg` or `webp`."),
    Input("return_images", "BOOL", False, "Return the encoded pictures as bytes in `images`. Refused in plain JSON, which cannot carry bytes: use `use_base64`."),
    Input("use_base64", "BOOL", False, "Return the encoded pictures in `images_base64` (URL-safe alphabet)."),
    Input("clip_skip", "INT64", 1, "Which of the text encoder's layers counts, from the end: 1 is the last one, 2 the one before."),
    Input("image", "BYTES", b"", "Input picture of `i2i`, `inpaint` and `outpaint`, and control picture of `sd_controlnet`, as an encoded file (PNG, JPEG, WebP, AVIF, GIF, BMP, or HEIC where the server has it). Not for JSON, which cannot carry bytes."),
    Input("image_base64", "STRING", "", "The same as base64 (standard or URL-safe) or a data URL. Give exactly one of the three."),
    Input("image_link", "STRING", "", "The same as an `http(s)` URL to fetch, or a data URL."),
    Input("mask", "BYTES", b"", "Mask of `inpaint`, as an encoded file: white is repainted."),
    Input("mask_base64", "STRING", "", "The same as base64. Give exactly one of the three."),
    Input("mask_link", "STRING", "", "The same as a URL to fetch."),
    Input("resize_mode", "INT64", 0, "Input picture to `width`×`height`: 0 stretch, 1 scale and crop, 2 pad with white (scaled down to fit if it is larger)."),
    Input("denoising_strength", "FP32", 0.55, "How much of the input image is drawn again, 0 to 1: the part of `steps` that is made, at least one step. 0 returns the input image, fitted to the size."),
    Input("keep_unmasked", "BOOL", True, "`inpaint`, `outpaint`: paste what was not masked back, as it was, with a soft edge."),
    Input("expand", "INT64", (), "`outpaint`: pixels to add to `width`×`height`, `[left, right, up, down]`; none: 128 each."),
    Input("expand_type", "STRING", "copy", "What added pixels are before they are drawn: `copy` repeats the edge, `reflect` mirrors."),
    Input("lora_path", "STRING", (), "LoRA files, relative to the model directory; up to `max_loras` (8)."),
    Input("lora_attn", "FP32", (), "Weight of each LoRA, or one for all; none: 0.75."),
    Input("use_translate", "BOOL", (), "`ensemble…`: translate what is Chinese of the prompts; none: the service's setting. `sd_base` and `sd_controlnet` refuse `true`."),
    Input("profile", "STRING", "", "[Sampling profile](profiles.md): `exact`, `cached`, `guidance-interval` or `fast`; empty: the server's setting."),
    Input("save_dir", "STRING", "result", "Folder of the result store."),
    Input("embed_metadata", "BOOL", True, "Write the request's parameters into the pictures."),
    Input("safety_action", "STRING", "", "What becomes of images that the [safety checker](safety.md) flags: `blacken`, or `flag` (returned as they are, with `is_nsfw`), where the server allows it; empty: the server's setting."),
    Input("timeout_seconds", "FP32", 0.0, "Cancel the job this long after its arrival, whoever still waits; 0: never. `infer` callers can send Triton's own `timeout` (microseconds) instead; the shorter one counts."),
)  # fmt: skip

OUTPUTS: tuple[Output, ...] = (
    Output("success", "INT64", "1. (A request that fails is answered with a Triton error instead.)"),
    Output("task_id", "STRING", "As asked."),
    Output("seed", "STRING", "The seed of the first image."),
    Output("prompt", "STRING", "The prompt as it went into the model."),
    Output("images", "BYTES", "Encoded pictures (bytes), with `return_images`.", many=True),
    Output("images_base64", "STRING", "Encoded pictures, with `use_base64`.", many=True),
    Output("image_url", "STRING", "Where each picture can be fetched; empty if the server stores none.", many=True),
    Output(
        "oss_url",
        "STRING",
        "Where each picture is stored, as `oss://…` or `file://…`; empty if the server stores none.",
        many=True,
    ),
    Output(
        "is_nsfw",
        "BOOL",
        "True: the safety checker flagged the image, which is black unless `safety_action` is `flag`.",
        many=True,
    ),
    Output("use_blade", "BOOL", "An optimised engine made the pictures."),
    Output("profile", "STRING", "The sampling profile that the pictures were made with."),
    Output(
        "warnings",
        "STRING",
        "What was not done as asked: words cut from a prompt, fields that the model does not have, …",
        many=True,
    ),
    Output("queue_seconds", "FP32", "Time from arrival to the first step."),
    Output("run_seconds", "FP32", "Time from the first step to the last picture."),
)

# What `sd_controlnet` takes and gives besides.
CONTROL_INPUTS: tuple[Input, ...] = (
    Input("controlnet_path", "STRING", (), "ControlNets, folders or files relative to the model directory; up to `max_controlnets` (4). None, or an empty one: the model directory's own, `controlnet/`."),
    Input("process_func", "STRING", (), "[Preprocessor](adapters.md#preprocessors) that makes the control picture, one for all ControlNets or one each; none: the picture as it is."),
    Input("control_scale", "FP32", (), "How strongly each ControlNet controls, 0 to 10, one for all or one each; none: 1."),
    Input("control_start", "FP32", (), "Part of the steps, 0 to 1, at which each begins to control, one for all or one each; none: 0."),
    Input("control_end", "FP32", (), "Part of the steps at which each ends to control, more than its `control_start`; none: 1."),
    Input("control_image", "BYTES", (), "Control pictures, as encoded files, one for all or one each; none: `image`. Not for JSON, which cannot carry bytes."),
    Input("control_image_base64", "STRING", (), "The same as base64. Give at most one of the three."),
    Input("control_image_link", "STRING", (), "The same as URLs to fetch."),
    Input("return_control_image", "BOOL", False, "Return what the preprocessors made, in `control_images_base64`."),
)  # fmt: skip
CONTROL_OUTPUTS: tuple[Output, ...] = (
    Output(
        "control_images_base64",
        "STRING",
        "The control picture of each ControlNet (PNG, URL-safe alphabet), with `return_control_image`.",
        many=True,
    ),
)

# What of a request the translator changes, and what it asks for. Its outputs stand in the inputs' place.
TRANSLATED = ("prompt", "negative_prompt")
TRANSLATOR_INPUTS: tuple[Input, ...] = tuple(field for field in INPUTS if field.name in (*TRANSLATED, "use_translate"))
TRANSLATOR_OUTPUTS: tuple[Output, ...] = (
    Output("prompt", "STRING", "The prompt in English; what is not Chinese is as it was."),
    Output("negative_prompt", "STRING", "The same of the negative prompt."),
    Output("warnings", "STRING", "What was not translated.", many=True),
)
# How the translator's warnings reach the reply of an ensemble.
TRANSLATOR_WARNINGS = Input("translator_warnings", "STRING", (), "Set by ensembles: what the translator says, repeated in `warnings`.")  # fmt: skip

# Of the models that make pictures.
INPUT_BY_NAME = {field.name: field for field in (*INPUTS, *CONTROL_INPUTS, TRANSLATOR_WARNINGS)}

# Headers that `serve` has Triton pass on as request parameters. Every HTTP caller sends the first and every gRPC caller
# the second, but Triton passes on none of a `generate` request: one without them is plain JSON.
FORWARDED_HEADERS = ("host", "user-agent")

# The parameter of a ``config.pbtxt`` that holds a model's probe, a request as JSON.
PROBE_PARAMETER = "probe"
# The parameter that holds a request to try, as JSON; the launcher offers it.
EXAMPLE_PARAMETER = "example"
# A request with this ``func_name`` is answered at once by a model process that is alive: the launcher's watch.
PROBE = "probe"
# What a model process answers it that lives, but makes no pictures any more: the launcher starts the model anew.
LOOP_HAS_ENDED = "the engine loop has ended"

JOBS_INPUTS: tuple[Input, ...] = (
    Input("action", "STRING", "list", "`list` (all jobs that are known), `progress` or `cancel` (both of one task)."),
    Input("task_id", "STRING", "", "The task; required by `progress` and `cancel`."),
    Input("preview", "BOOL", False, "With `progress`: ask for a small picture of the first unfinished image as it stands."),
)  # fmt: skip

# One entry for each job, the newest first. Two jobs may bear the same task_id; `progress` and `cancel` take them all.
JOBS_OUTPUTS: tuple[Output, ...] = (
    Output("task_id", "STRING", "The task.", many=True),
    Output("model", "STRING", "The model that runs it.", many=True),
    Output("state", "STRING", "`queued`, `running`, `succeeded`, `failed` or `cancelled`.", many=True),
    Output("step", "INT64", "Sampling steps made, of all images together.", many=True),
    Output("steps", "INT64", "Sampling steps to make, of all images together; 0 while unknown.", many=True),
    Output("image_num", "INT64", "Images asked for.", many=True),
    Output("images_done", "INT64", "Images finished.", many=True),
    Output("elapsed_seconds", "FP32", "Time since arrival; of a finished job, until its end.", many=True),
    Output(
        "error_msg",
        "STRING",
        "Why it failed; of a running job, what it waits for (a store that is away); else empty.",
        many=True,
    ),
    Output("preview", "STRING", "JPEG as base64 (URL-safe), if one was asked for and is there; else empty.", many=True),
)

_BASE = Contract((*INPUTS, TRANSLATOR_WARNINGS), OUTPUTS)
_CONTROLNET = Contract((*_BASE.inputs, *CONTROL_INPUTS), (*OUTPUTS, *CONTROL_OUTPUTS))

# By the names of the models.
CONTRACTS: Mapping[str, Contract] = {
    "sd_base": _BASE,
    "sd_controlnet": _CONTROLNET,
    "translator": Contract(TRANSLATOR_INPUTS, TRANSLATOR_OUTPUTS),
    "ensemble": _BASE.of_ensemble,
    "ensemble_controlnet": _CONTROLNET.of_ensemble,
    "jobs": Contract(JOBS_INPUTS, JOBS_OUTPUTS),
}
