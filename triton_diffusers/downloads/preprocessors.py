"""The preprocessors' weights, from their hub to the folder where a server looks for them."""

from __future__ import annotations

from pathlib import Path

from triton_diffusers.downloads.huggingface import HuggingFaceRepository
from triton_diffusers.downloads.remote import RemoteFile, SourceError, check
from triton_diffusers.preprocess.registry import Weights
from triton_diffusers.settings import Settings


def fetch_weights(weights: Weights, root: Path, settings: Settings) -> None:
    """Bring a network's files below ``root``, checked; those that are there as the hub has them stay.

    Raises ``SourceError``; what was fetched until then is gone on with the next time.
    """
    source = f"hf://{weights.repository}"
    if settings.offline:
        raise SourceError(f"{source} is not asked: offline, nothing is fetched")
    repository = HuggingFaceRepository(weights.repository, None)
    listed = {file.path: file for file in repository.files()}
    chosen = [_choose(names, listed, source) for names in weights.files]
    check(chosen, int(settings.max_source_gigabytes * 1e9), source)
    folder = root / weights.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        repository.fetch(chosen, folder)
    except OSError as error:
        raise SourceError(f"{source} cannot be fetched into {folder}: {error.strerror or error}") from error


def _choose(names: tuple[str, ...], listed: dict[str, RemoteFile], source: str) -> RemoteFile:
    for name in names:
        if name in listed:
            return listed[name]
    raise SourceError(f"{source} has no {' or '.join(names)}")
