"""Tables of the wire: every input and output of the server's models, in the server's order."""

# Made from triton_diffusers/api/ by `make generated`; do not edit.

from __future__ import annotations

from triton_diffusers_client.field_types import InputField, OutputField

INPUTS: tuple[InputField, ...] = (
    InputField("task_id", "STRING", ""),
    InputField("prompt", "STRING", ""),
    InputField("negative_prompt", "STRING", ""),
    InputField("func_name", "STRING", "t2i"),
    InputField("steps", "INT64", 0),
    InputField("cfg_scale", "FP32", 0.0),
    InputField("width", "INT64", 0),
    InputField("height", "INT64", 0),
    InputField("seed", "STRING", ""),
    InputField("image_num", "INT64", 1),
    InputField("scheduler", "STRING", ""),
    InputField("output_format", "STRING", "png"),
    InputField("return_images", "BOOL", False),
    InputField("use_base64", "BOOL", False),
    InputField("clip_skip", "INT64", 1),
    InputField("image", "BYTES", b""),
    InputField("image_base64", "STRING", ""),
    InputField("image_link", "STRING", ""),
    InputField("mask", "BYTES", b""),
    InputField("mask_base64", "STRING", ""),
    InputField("mask_link", "STRING", ""),
    InputField("resize_mode", "INT64", 0),
    InputField("denoising_strength", "FP32", 0.55),
    InputField("keep_unmasked", "BOOL", True),
    InputField("expand", "INT64", ()),
    InputField("expand_type", "STRING", "copy"),
    InputField("lora_path", "STRING", ()),
    InputField("lora_attn", "FP32", ()),
    InputField("use_translate", "BOOL", ()),
    InputField("profile", "STRING", ""),
    InputField("save_dir", "STRING", "result"),
    InputField("store_images", "BOOL", True),
    InputField("embed_metadata", "BOOL", True),
    InputField("safety_action", "STRING", ""),
    InputField("timeout_seconds", "FP32", 0.0),
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
    OutputField("use_blade", "BOOL"),
    OutputField("profile", "STRING"),
    OutputField("warnings", "STRING", many=True),
    OutputField("queue_seconds", "FP32"),
    OutputField("run_seconds", "FP32"),
)

CONTROL_INPUTS: tuple[InputField, ...] = (
    InputField("controlnet_path", "STRING", ()),
    InputField("process_func", "STRING", ()),
    InputField("control_scale", "FP32", ()),
    InputField("control_start", "FP32", ()),
    InputField("control_end", "FP32", ()),
    InputField("control_image", "BYTES", ()),
    InputField("control_image_base64", "STRING", ()),
    InputField("control_image_link", "STRING", ()),
    InputField("return_control_image", "BOOL", False),
)

CONTROL_OUTPUTS: tuple[OutputField, ...] = (OutputField("control_images_base64", "STRING", many=True),)

JOBS_INPUTS: tuple[InputField, ...] = (
    InputField("action", "STRING", "list"),
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
