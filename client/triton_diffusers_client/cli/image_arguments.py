"""The command line's arguments for input images, LoRAs and profiles, and the options that they stand for."""

from __future__ import annotations

import argparse
from typing import Any

from triton_diffusers_client.cli.argument_help import choices_of, default_of, help_of
from triton_diffusers_client.wire import RESIZE_MODES

_LORA_WEIGHT = float(default_of("lora_attn"))


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--image``, ``--mask``, ``--expand`` and their options."""
    group = parser.add_argument_group(
        "input image", "--image alone changes an image; with --mask it inpaints, with --expand it outpaints."
    )
    group.add_argument("--image", metavar="FILE", help="image to begin with, or an http(s) URL that the server fetches")
    group.add_argument("--mask", metavar="FILE", help="mask, as a file or a URL; white is repainted")
    group.add_argument(
        "--mask-channel",
        choices=choices_of("mask_channel"),
        help=help_of("mask_channel", "part of the mask that counts: white or what is transparent is repainted"),
    )
    group.add_argument(
        "--expand", type=_sides, metavar="L,R,U,D", help="pixels to add at the left, the right, above and below"
    )
    group.add_argument(
        "--expand-type",
        choices=choices_of("expand_type"),
        metavar="NAME",
        help=help_of("expand_type", "their initial content"),
    )
    group.add_argument(
        "--strength",
        dest="denoising_strength",
        type=float,
        metavar="X",
        help=help_of("denoising_strength", "part of the image that is drawn again"),
    )
    group.add_argument(
        "--resize-mode",
        choices=tuple(RESIZE_MODES),
        help=f"way to fit the image to --size (default: {_default_mode()})",
    )
    group.add_argument(
        "--no-keep-unmasked",
        dest="keep_unmasked",
        action="store_false",
        default=None,
        help="do not paste the unmasked part back",
    )


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--lora``, ``--clip-skip`` and ``--profile``."""
    parser.add_argument(
        "--lora",
        dest="loras",
        action="append",
        type=_lora,
        metavar="PATH[:WEIGHT]",
        help="a LoRA, relative to the server's model directory; may be given several times "
        f"(default weight: {_LORA_WEIGHT:g})",
    )
    parser.add_argument(
        "--clip-skip", type=int, metavar="N", help=help_of("clip_skip", "text encoder's layer, from the end")
    )
    parser.add_argument(
        "--profile",
        choices=choices_of("profile"),
        metavar="NAME",
        help=help_of("profile", "sampling profile, which trades quality for speed"),
    )


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the given arguments. Raises ``ValueError`` for arguments that do not go together."""
    if args.image is None and (args.mask is not None or args.expand is not None):
        raise ValueError("--mask and --expand need --image")
    if args.mask is not None and args.expand is not None:
        raise ValueError("--mask and --expand do not go together")
    options: dict[str, Any] = {}
    if args.image is not None:
        options["func_name"] = "inpaint" if args.mask else "outpaint" if args.expand else "i2i"
    for name in ("image", "mask"):
        if (place := getattr(args, name)) is not None:
            options[name] = place
    if args.resize_mode is not None:
        options["resize_mode"] = RESIZE_MODES[args.resize_mode]
    if args.loras:
        options["lora_path"] = [path for path, _ in args.loras]
        options["lora_attn"] = [weight for _, weight in args.loras]
    return options


def _default_mode() -> str:
    return next(name for name, mode in RESIZE_MODES.items() if str(mode) == default_of("resize_mode"))


def _sides(text: str) -> list[int]:
    try:
        sides = [int(side) for side in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 64,64,0,0")
    return sides


def _lora(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon else (text, _LORA_WEIGHT)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like lora/style.safetensors:0.8") from None
