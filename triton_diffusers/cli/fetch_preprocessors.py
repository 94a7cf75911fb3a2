"""The command ``triton-diffusers fetch-preprocessors``. Heavy imports come only with the first download."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from triton_diffusers.downloads import SourceError, is_remote
from triton_diffusers.preprocess import PREPROCESSORS, WEIGHTS
from triton_diffusers.preprocess.registry import Weights
from triton_diffusers.settings import Settings, SettingsError

DESCRIPTION = """\
Download the weights of ControlNet preprocessors from the Hugging Face hub (HF_ENDPOINT names another, HF_TOKEN is sent)
into the folder where a server looks for them. Existing files are kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"preprocessors: {', '.join(WEIGHTS)} (default: all)")
    parser.add_argument(
        "--model-dir",
        default="",
        metavar="DIR",
        help="model directory; its preprocessors/ is filled (default: $TRITON_DIFFUSERS_MODEL_DIR, else models/emoji)",
    )
    parser.add_argument(
        "--to",
        default="",
        metavar="DIR",
        help="fill this folder instead; servers find it by $TRITON_DIFFUSERS_PREPROCESSORS, which is also the default",
    )
    parser.add_argument(
        "--force", action="store_true", help="check existing files, too, and replace those that differ from the hub's"
    )
    parser.add_argument("--dry-run", action="store_true", help="list existing and missing files, and do nothing")


def run(chosen: argparse.Namespace) -> int:
    """Run the command; return the exit code: 0, 1 if a download failed, 2 if it could not begin."""
    logging.basicConfig(level=logging.INFO, format="triton-diffusers: %(message)s")
    if unknown := [name for name in chosen.names if name not in PREPROCESSORS]:
        return _complain(f"unknown preprocessor {unknown[0]!r}; known: {', '.join(PREPROCESSORS)}", 2)
    try:
        settings = Settings.read()
        root = _root(chosen, settings)
    except (SettingsError, SourceError) as error:
        return _complain(str(error), 2)
    for name in chosen.names:
        if name not in WEIGHTS:
            print(f"{name}: needs no weights")
    try:
        return _fetch(_needed(chosen.names), root, settings, force=chosen.force, dry_run=chosen.dry_run)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command resumes the download", 130)


def _root(chosen: argparse.Namespace, settings: Settings) -> Path:
    if chosen.to:
        return Path(chosen.to)
    if chosen.model_dir:
        settings = settings.model_copy(update={"model_dir": Path(chosen.model_dir), "preprocessors": ""})
    # A Path has replaced the two slashes by one.
    if not settings.preprocessors and is_remote(str(settings.model_dir).replace(":/", "://", 1)):
        raise SourceError(
            f"{settings.model_dir} is not on this machine; name a folder with --to, and tell it to servers by"
            " TRITON_DIFFUSERS_PREPROCESSORS"
        )
    return settings.preprocessors_dir


def _needed(names: Sequence[str]) -> list[Weights]:
    """Return the weights of the named preprocessors (of all if none is named), each once."""
    return list(dict.fromkeys(weights for name in names or WEIGHTS for weights in WEIGHTS.get(name, ())))


def _fetch(needed: Sequence[Weights], root: Path, settings: Settings, *, force: bool, dry_run: bool) -> int:
    failed = 0
    for weights in needed:
        missing = weights.missing(root)
        state = "exists"
        if dry_run and (missing or force):
            state = f"would be fetched ({weights.megabytes} MB)" if missing else "exists and would be checked"
        elif missing or force:
            try:
                _fetch_one(weights, root, settings)
                state = "fetched"
            except SourceError as error:
                state = f"not fetched: {error}"
                failed += 1
        print(f"{_title(weights)}: {state}")
    print(f"folder: {root.absolute()}")
    return 1 if failed else 0


def _fetch_one(weights: Weights, root: Path, settings: Settings) -> None:
    from triton_diffusers.downloads.preprocessors import fetch_weights

    logging.getLogger(__name__).info("fetching %s, about %d MB", weights.repository, weights.megabytes)
    fetch_weights(weights, root, settings)


def _title(weights: Weights) -> str:
    used_by = [name for name, needs in WEIGHTS.items() if weights in needs]
    only = f"/{weights.files[0][0]}" if len(weights.files) == 1 else ""
    return f"{weights.folder}{only} of {weights.repository}, for {', '.join(used_by)}"


def _complain(text: str, code: int) -> int:
    print(f"triton-diffusers: {text}", file=sys.stderr)
    return code
