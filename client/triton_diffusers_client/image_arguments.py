"""The command line's arguments for input images and LoRAs, and the options that they stand for."""

from __future__ import annotations

import argparse
from typing import Any

_RESIZE_MODES = {"stretch": 0, "crop": 1, "pad": 2}


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them: ``--image``, ``--mask``, ``--expand`` and what belongs to them."""
    group = parser.add_argument_group(
        "input image", "--image alone draws from an image; with --mask it inpaints, with --expand it outpaints."
    )
    group.add_argument("--image", metavar="FILE", help="image to begin with, or an http(s) URL that the server fetches")
    group.add_argument("--mask", metavar="FILE", help="white is repainted; a file or a URL like --image")
    group.add_argument(
        "--expand", type=_sides, metavar="L,R,U,D", help="pixels to add at the left, the right, above and below"
    )
    group.add_argument("--expand-type", choices=("copy", "reflect"), help="what they are before they are drawn")
    group.add_argument(
        "--strength",
        dest="denoising_strength",
        type=float,
        metavar="X",
        help="how much of the image is drawn again, 0 to 1 (default: 0.55)",
    )
    group.add_argument(
        "--resize-mode", choices=tuple(_RESIZE_MODES), help="how the image comes to --size (default: stretch)"
    )
    group.add_argument(
        "--no-keep-unmasked",
        dest="keep_unmasked",
        action="store_false",
        default=None,
        help="do not paste back what was not masked",
    )


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--lora``, ``--clip-skip`` and ``--profile``."""
    parser.add_argument(
        "--lora",
        dest="loras",
        action="append",
        type=_lora,
        metavar="PATH[:WEIGHT]",
        help="a LoRA, relative to the server's model directory; may be given several times (weight: 0.75)",
    )
    parser.add_argument("--clip-skip", type=int, metavar="N", help="text encoder's layer from the end (default: 1)")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="exact, cached, guidance-interval or fast: how much of the sampling to leave out (default: the server's)",
    )


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of what was given. Raises ``ValueError`` for what does not go together."""
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
        options["resize_mode"] = _RESIZE_MODES[args.resize_mode]
    if args.loras:
        options["lora_path"] = [path for path, _ in args.loras]
        options["lora_attn"] = [weight for _, weight in args.loras]
    return options


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
        return (path, float(weight)) if colon else (text, 0.75)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like lora/style.safetensors:0.8") from None
