"""The options of the command ``build``. Imports nothing heavy, since every command's parser has it."""

from __future__ import annotations

import argparse

from triton_diffusers.compile.options import MIN_PSNR, PRECISIONS, SYNONYMS, BuildOptions

DESCRIPTION = """\
Compile a model for this machine: download it, export and compile its networks, verify that they generate the same
images, measure them, and place them in the model directory's optimized_model/, where a server finds them.
An interrupted build is resumed by the same command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_argument_group("build")
    what.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="model directory, with base_model/ in it, or a diffusers folder, or one checkpoint file; "
        "or hf://OWNER/NAME[@REVISION], "
        "modelscope://OWNER/NAME[@REVISION], oss://BUCKET/PREFIX, s3://BUCKET/PREFIX",
    )
    what.add_argument("--engine", metavar="NAME", help="openvino, inductor or blade (default: openvino)")
    what.add_argument(
        "--precision",
        choices=(*PRECISIONS, *SYNONYMS),
        metavar="NAME",
        help="float32, bfloat16 (bf16) or int8 (default: what suits the engine on this machine)",
    )
    what.add_argument(
        "--out",
        default="",
        metavar="PLACE",
        help="model directory that gets the artifact, oss://BUCKET/PREFIX or s3://BUCKET/PREFIX "
        "(default: the model's own directory)",
    )
    what.add_argument("--force", action="store_true", help="rebuild an artifact that exists and fits")
    what.add_argument(
        "--wait",
        action="store_true",
        help="if another build of the same artifact is running, wait for it and use its result",
    )
    what.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    check = parser.add_argument_group("verification")
    limits = ", ".join(f"{limit:g} for {name}" for name, limit in MIN_PSNR.items())
    check.add_argument(
        "--min-psnr",
        type=float,
        metavar="DB",
        help=f"minimum mean PSNR of its images against the eager engine's (default: {limits})",
    )
    check.add_argument(
        "--steps", type=_positive, default=12, metavar="N", help="steps of each image (default: %(default)s)"
    )
    check.add_argument(
        "--side", type=_side, default=0, metavar="PIXELS", help="side of the images (default: the model's own)"
    )
    instead = parser.add_argument_group("instead of building").add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="list the artifacts, and say which can be used here")
    instead.add_argument("--verify", action="store_true", help="check every byte of the artifacts")
    instead.add_argument("--remove", action="store_true", help="remove the artifact of --engine and --precision")


def options_of(chosen: argparse.Namespace) -> BuildOptions:
    """Return the options that the parsed arguments stand for."""
    return BuildOptions(
        model=chosen.model,
        engine=chosen.engine or "openvino",
        precision=chosen.precision or "",
        out=chosen.out,
        steps=chosen.steps,
        side=chosen.side,
        min_psnr=chosen.min_psnr,
        force=chosen.force,
        wait=chosen.wait,
        dry_run=chosen.dry_run,
    )


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000")


def _side(text: str) -> int:
    if text.isascii() and text.isdigit() and 64 <= int(text) <= 2048 and int(text) % 8 == 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a multiple of 8 from 64 to 2048")
