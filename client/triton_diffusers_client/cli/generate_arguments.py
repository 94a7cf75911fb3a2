"""The arguments of the command ``generate``, and the options and the model that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast

from triton_diffusers_client.cli.argument_help import choices_of, default_of, help_of
from triton_diffusers_client.cli.control_arguments import add_control_arguments, control_options
from triton_diffusers_client.cli.image_arguments import add_image_arguments, add_style_arguments, image_options
from triton_diffusers_client.cli.outputs import output_path
from triton_diffusers_client.fields import INPUTS, TRANSLATING_MODELS
from triton_diffusers_client.image import format_of_suffix
from triton_diffusers_client.options import Options
from triton_diffusers_client.request import GATEWAY_OPTIONS


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``."""
    parser.add_argument("prompt", metavar="PROMPT", help="text to draw")
    parser.add_argument(
        "-o",
        "--output",
        type=output_path,
        metavar="FILE",
        help="file to write or replace; several images become FILE-1, FILE-2, …; or a folder (default: TASK_ID.FORMAT)",
    )
    parser.add_argument("--negative-prompt", metavar="TEXT", help="text to avoid")
    parser.add_argument(
        "--translate",
        dest="use_translate",
        action=argparse.BooleanOptionalAction,
        help="translate Chinese text of the prompts; --translate uses the ensemble of --model "
        "(default: ensembles as their server is set, other models never)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help=help_of("steps", "sampling steps"))
    parser.add_argument("--size", action=_SizeAction, metavar="WxH", help="short for --width and --height")
    parser.add_argument("--width", type=int, metavar="PIXELS", help=help_of("width", "width"))
    parser.add_argument("--height", type=int, metavar="PIXELS", help=help_of("height", "height"))
    parser.add_argument("--seed", type=int, metavar="N", help=help_of("seed", "the same seed gives the same image"))
    parser.add_argument("--image-num", type=int, metavar="N", help=help_of("image_num", "number of images"))
    parser.add_argument("--scheduler", metavar="NAME", help=help_of("scheduler", "sampler"))
    parser.add_argument("--cfg-scale", type=float, metavar="X", help=help_of("cfg_scale", "guidance scale"))
    parser.add_argument(
        "--format",
        dest="output_format",
        choices=choices_of("output_format"),
        help=f"format of the images (default: by the name of FILE, else {default_of('output_format')})",
    )
    parser.add_argument(
        "--quality",
        dest="output_quality",
        type=int,
        metavar="N",
        help=help_of("output_quality", "quality of JPEG and WebP images"),
    )
    parser.add_argument("--task-id", metavar="ID", help="name of the job on the server (default: random)")
    parser.add_argument(
        "--priority",
        type=int,
        metavar="N",
        help="place among the caller's own jobs at a gateway, -100 to 100; higher ones go first (default: 0)",
    )
    parser.add_argument("--webhook", metavar="URL", help="URL that a gateway calls when the job has ended")
    parser.add_argument("--save-dir", metavar="FOLDER", help=help_of("save_dir", "folder of the server's store"))
    parser.add_argument(
        "--no-store-images",
        dest="store_images",
        action="store_false",
        default=None,
        help="do not keep the images in the server's store",
    )
    parser.add_argument(
        "--no-embed-metadata",
        dest="embed_metadata",
        action="store_false",
        default=None,
        help="do not write the request's parameters into the images",
    )
    parser.add_argument(
        "--safety-action",
        choices=choices_of("safety_action"),
        metavar="NAME",
        help=help_of("safety_action", "treatment of images that the safety checker flags; a server may not allow flag"),
    )
    parser.add_argument(
        "--timeout-seconds",
        type=float,
        metavar="SECONDS",
        help=help_of("timeout_seconds", "time after which the server cancels the job, even if this program has ended"),
    )
    add_style_arguments(parser)
    add_image_arguments(parser)
    add_control_arguments(parser)


class _SizeAction(argparse.Action):
    """The action of ``--size 640x480``: ``--width 640 --height 480``; the last of several arguments counts."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        width, _, height = str(values).lower().replace("×", "x").partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise argparse.ArgumentError(self, f"{values!r} is not like 512x512")
        namespace.width, namespace.height = int(width), int(height)


def options_of(args: argparse.Namespace) -> Options:
    """Return the options that ``generate``'s arguments stand for; the server has defaults for the others.

    Raises ``ValueError`` for arguments that do not go together.
    """
    own = {"prompt", "image", "mask", "resize_mode"}  # have another meaning on the command line
    names = [*(field.name for field in INPUTS if field.name not in own), *GATEWAY_OPTIONS]
    options = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    options |= image_options(args) | control_options(args)
    if args.output is not None and not args.output.is_dir():
        promised = format_of_suffix(args.output.suffix)
        if promised and args.output_format not in (None, promised):
            raise ValueError(f"--format {args.output_format} and --output {args.output} do not go together")
        options["output_format"] = args.output_format or promised or default_of("output_format")
    return cast(Options, options)


def model_of(args: argparse.Namespace) -> str | None:
    """Return the model that draws: the chosen one, or with ``--translate`` the ensemble of the translator and that one.

    None stands for the client's default, which is an ensemble where the server has one.
    """
    model: str | None = args.model
    return TRANSLATING_MODELS.get(model, model) if model and args.use_translate else model
