"""The command line's arguments for ControlNets, and the options that they stand for."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from triton_diffusers_client.cli.argument_help import choices_of, help_of

_DIRECT = ("controlnet_path", "process_func", "control_scale", "control_start", "control_end", "return_control_image")


def add_control_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--controlnet``, ``--control-image`` and their options."""
    group = parser.add_argument_group(
        "ControlNets",
        "They are controlled by --control-image, or by --image. With several ControlNets, each of the other options is "
        "given once for all, or once for each.",
    )
    add = partial(group.add_argument, action="append")
    add(
        "--controlnet",
        dest="controlnet_path",
        metavar="PATH",
        help=help_of(
            "controlnet_path", "a ControlNet, relative to the server's model directory; may be given several times"
        ),
    )
    add(
        "--process",
        dest="process_func",
        choices=choices_of("process_func"),
        metavar="NAME",
        help=help_of("process_func", "preprocessor that makes the control image"),
    )
    add("--control-scale", type=float, metavar="X", help=help_of("control_scale", "strength"))
    add(
        "--control-start",
        type=float,
        metavar="X",
        help=help_of("control_start", "part of the steps at which it begins"),
    )
    add("--control-end", type=float, metavar="X", help=help_of("control_end", "part of the steps at which it ends"))
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
    """Return the options of the given arguments. Raises ``ValueError`` for arguments that do not go together."""
    options = {name: value for name in _DIRECT if (value := getattr(args, name)) is not None}
    places = args.control_image or []
    if options and not places and args.image is None:
        raise ValueError("ControlNets need --control-image or --image")
    if places:
        options["control_image"] = places
    return options
