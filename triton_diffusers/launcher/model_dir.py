"""The model directory of ``serve``: fetched and checked."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from triton_diffusers.artifacts.store import store_folder
from triton_diffusers.checkpoints.layout import FILE_SUFFIXES, has_base_model
from triton_diffusers.downloads import SourceError, is_remote, resolve_model_dir
from triton_diffusers.launcher.errors import BadOption, ModelDirectoryMissing
from triton_diffusers.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def fetch_model_dir(source: str) -> Path:
    """Return the local model directory of a path or URL; see ``triton_diffusers.downloads``.

    Raises:
        ModelDirectoryMissing: it cannot be fetched.
        BadOption: a setting cannot be read.
    """
    if not is_remote(source):
        return Path(source)
    try:
        return resolve_model_dir(source, Settings.read())
    except SourceError as error:
        raise ModelDirectoryMissing(str(error)) from error
    except SettingsError as error:
        raise BadOption(str(error)) from error


def discard_artifacts(model_dir: Path) -> None:
    """Remove the compiled artifacts of a model. Raises: BadOption: they cannot be removed."""
    folder = store_folder(model_dir)
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise BadOption(f"--remove_opt: {folder} cannot be removed: {error.strerror}") from error
    log.info("removed the compiled artifacts in %s", folder)


def check_model_dir(path: Path) -> Path:
    """Return the model directory, absolute.

    Raises:
        ModelDirectoryMissing: there is none, or neither a base model is in it nor is it one itself.
    """
    if not path.exists():
        raise ModelDirectoryMissing(f"there is no model directory at {path}; name one with --model-dir")
    if not has_base_model(path):
        raise ModelDirectoryMissing(
            f"{path} is not a model: expected a folder with base_model/ or model_index.json in it, or one "
            f"{' or '.join(FILE_SUFFIXES)} file"
        )
    return path.absolute()
