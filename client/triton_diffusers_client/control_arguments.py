"""The command line's arguments for ControlNets, and the options that they stand for."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

_DIRECT = ("controlnet_path", "process_func", "control_scale", "control_start", "control_end", "return_control_image")


def add_control_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them: ``--controlnet``, ``--control-image`` and what belongs to them."""
    group = parser.add_argument_group(
        "ControlNets",
        "What controls is --control-image, or --image. With several ControlNets, each of the others is given once for "
        "all of them, or once for each.",
    )
    add = partial(group.add_argument, action="append")
    add(
        "--controlnet",
        dest="controlnet_path",
        metavar="PATH",
        help="a ControlNet, relative to the server's model directory; may be given several times (default: the model "
        "directory's own)",
    )
    add(
        "--process",
        dest="process_func",
        metavar="NAME",
        help="what makes the control image: canny, depth, hed, lineart, mlsd, normal, openpose, scribble, seg, tile "
        "or none (default: none)",
    )
    add("--control-scale", type=float, metavar="X", help="how strongly it controls, 0 to 10 (default: 1)")
    add("--control-start", type=float, metavar="X", help="part of the steps at which it begins, 0 to 1 (default: 0)")
    add("--control-end", type=float, metavar="X", help="part of the steps at which it ends (default: 1)")
    add(
        "--control-image",
        metavar="FILE",
        help="control image, or an http(s) URL that the server fetches (default: that of --image)",
    )
    group.add_argument(
        "--return-control-image",
        action="store_true",
        default=None,
        help="also write the control images, as FILE-control.png or FILE-control-1.png, …",
    )


def control_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of what was given. Raises ``ValueError`` for what does not go together."""
    options = {name: value for name in _DIRECT if (value := getattr(args, name)) is not None}
    places = args.control_image or []
    if options and not places and args.image is None:
        raise ValueError("ControlNets need --control-image or --image")
    if places:
        options["control_image"] = places
    return options
