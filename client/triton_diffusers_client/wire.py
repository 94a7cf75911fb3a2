"""Tables of the wire: every input and output of the server's models, in the server's order."""

# Made from triton_diffusers/api/ by `make generated`; do not edit.

from __future__ import annotations

from triton_diffusers_client.field_types import InputField, OutputField

INPUTS: tuple[InputField, ...] = (
    InputField("task_id", "STRING", ""),
    InputField("prompt", "STRING", ""),
    InputField("negative_prompt", "STRING", ""),
    InputField("func_name", "STRING", "t2i", choices=("t2i", "i2i", "inpaint", "outpaint")),
    InputField("steps", "INT64", 0, default_help="the model's own (50 for Stable Diffusion 1 and 2)", minimum=1),
    InputField(
        "cfg_scale",
        "FP32",
        0.0,
        default_help="the model's own (7 for Stable Diffusion 1 and 2)",
        minimum=1.0,
        maximum=30.0,
    ),
    InputField("width", "INT64", 0, default_help="the model's own size (512 for SD 1.x)", minimum=16),
    InputField("height", "INT64", 0, default_help="the model's own size", minimum=16),
    InputField("seed", "STRING", "", default_help="random"),
    InputField("image_num", "INT64", 1, minimum=1),
    InputField("scheduler", "STRING", "", default_help="the model's own (DPM++ 2M for Stable Diffusion 1 and 2)"),
    InputField("output_format", "STRING", "png", choices=("png", "jpeg", "webp")),
    InputField("output_quality", "INT64", 95, minimum=1, maximum=100),
    InputField("return_images", "BOOL", False),
    InputField("use_base64", "BOOL", False),
    InputField("clip_skip", "INT64", 1, minimum=1, maximum=24),
    InputField("image", "BYTES", b""),
    InputField("image_base64", "STRING", ""),
    InputField("image_link", "STRING", ""),
    InputField("mask", "BYTES", b""),
    InputField("mask_base64", "STRING", ""),
    InputField("mask_link", "STRING", ""),
    InputField("mask_channel", "STRING", "luminance", choices=("luminance", "alpha")),
    InputField("resize_mode", "INT64", 0, minimum=0, maximum=2),
    InputField("denoising_strength", "FP32", 0.55, minimum=0.0, maximum=1.0),
    InputField("keep_unmasked", "BOOL", True),
    InputField("expand", "INT64", (), default_help="128 each", minimum=0),
    InputField("expand_type", "STRING", "copy", choices=("copy", "reflect")),
    InputField("lora_path", "STRING", ()),
    InputField("lora_attn", "FP32", (), default_help="0.75"),
    InputField("use_translate", "BOOL", (), default_help="the service's setting"),
    InputField(
        "profile",
        "STRING",
        "",
        default_help="the server's setting",
        choices=("exact", "cached", "guidance-interval", "fast"),
    ),
    InputField("save_dir", "STRING", "result"),
    InputField("store_images", "BOOL", True),
    InputField("embed_metadata", "BOOL", True),
    InputField("safety_action", "STRING", "", default_help="the server's setting", choices=("blacken", "flag")),
    InputField("timeout_seconds", "FP32", 0.0, default_help="never", minimum=0.0),
)

OUTPUTS: tuple[OutputField, ...] = (
    OutputField("success", "INT64"),
    OutputField("task_id", "STRING"),
    OutputField("seed", "STRING"),
    OutputField("prompt", "STRING"),
    OutputField("images", "BYTES", many=True),
    OutputField("images_base64", "STRING", many=True),
    OutputField("image_url", "STRING", many=True),
    OutputField("oss_url", "STRING", many=True),
    OutputField("is_nsfw", "BOOL", many=True),
    OutputField("parameters", "STRING"),
    OutputField("use_blade", "BOOL"),
    OutputField("profile", "STRING"),
    OutputField("warnings", "STRING", many=True),
    OutputField("queue_seconds", "FP32"),
    OutputField("run_seconds", "FP32"),
)

CONTROL_INPUTS: tuple[InputField, ...] = (
    InputField("controlnet_path", "STRING", (), default_help="the model directory's own"),
    InputField(
        "process_func",
        "STRING",
        (),
        default_help="the image as it is",
        choices=("canny", "depth", "hed", "lineart", "mlsd", "none", "normal", "openpose", "scribble", "seg", "tile"),
    ),
    InputField("control_scale", "FP32", (), default_help="1", minimum=0.0, maximum=10.0),
    InputField("control_start", "FP32", (), default_help="0", minimum=0.0, maximum=1.0),
    InputField("control_end", "FP32", (), default_help="1", minimum=0.0, maximum=1.0),
    InputField("control_image", "BYTES", (), default_help="image"),
    InputField("control_image_base64", "STRING", ()),
    InputField("control_image_link", "STRING", ()),
    InputField("return_control_image", "BOOL", False),
)

CONTROL_OUTPUTS: tuple[OutputField, ...] = (OutputField("control_images_base64", "STRING", many=True),)

JOBS_INPUTS: tuple[InputField, ...] = (
    InputField("action", "STRING", "list", choices=("list", "progress", "cancel")),
    InputField("task_id", "STRING", ""),
    InputField("preview", "BOOL", False),
)

JOBS_OUTPUTS: tuple[OutputField, ...] = (
    OutputField("task_id", "STRING", many=True),
    OutputField("model", "STRING", many=True),
    OutputField("state", "STRING", many=True),
    OutputField("step", "INT64", many=True),
    OutputField("steps", "INT64", many=True),
    OutputField("image_num", "INT64", many=True),
    OutputField("images_done", "INT64", many=True),
    OutputField("elapsed_seconds", "FP32", many=True),
    OutputField("error_msg", "STRING", many=True),
    OutputField("preview", "STRING", many=True),
)

RESIZE_MODES = {"stretch": 0, "crop": 1, "pad": 2}
