"""Download the preprocessors' weights to the folder where a server looks for them."""

from __future__ import annotations

from pathlib import Path

from triton_diffusers.downloads.huggingface import HuggingFaceRepository
from triton_diffusers.downloads.remote import RemoteFile, SourceError, check
from triton_diffusers.preprocess.registry import Weights
from triton_diffusers.settings import Settings


def fetch_weights(weights: Weights, root: Path, settings: Settings) -> None:
    """Download a network's files below ``root`` and verify them; files that match the hub's are kept.

    Raises: SourceError: the download failed; the next one resumes.
    """
    source = f"hf://{weights.repository}"
    if settings.offline:
        raise SourceError(f"{source} cannot be downloaded: offline mode is set")
    repository = HuggingFaceRepository(weights.repository, None)
    listed = {file.path: file for file in repository.files()}
    chosen = [_choose(names, listed, source) for names in weights.files]
    check(chosen, int(settings.max_source_gigabytes * 1e9), source)
    folder = root / weights.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        repository.fetch(chosen, folder)
    except OSError as error:
        raise SourceError(f"{source} cannot be downloaded to {folder}: {error.strerror or error}") from error


def _choose(names: tuple[str, ...], listed: dict[str, RemoteFile], source: str) -> RemoteFile:
    for name in names:
        if name in listed:
            return listed[name]
    raise SourceError(f"{source} has no {' or '.join(names)}")
