"""Repositories of the Hugging Face hub, or of a compatible one (``HF_ENDPOINT``; token: ``HF_TOKEN``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triton_diffusers.downloads.download import mismatch
from triton_diffusers.downloads.remote import RemoteFile, SourceError, Unreachable


class HuggingFaceRepository:
    """A model repository at one revision (a branch, tag or commit)."""

    def __init__(self, name: str, revision: str | None) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise SourceError("hf:// needs huggingface_hub; install triton-diffusers[engine]") from error
        import os

        # Read here, since the library reads it when it is imported.
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._api = HfApi(endpoint=self._endpoint, library_name="triton-diffusers")
        self._name, self._revision, self._commit = name, revision, ""

    def files(self) -> Sequence[RemoteFile]:
        from huggingface_hub import errors

        try:
            info = self._api.model_info(self._name, revision=self._revision, files_metadata=True)
        except errors.RepositoryNotFoundError as error:
            raise SourceError(f"hf://{self._name} does not exist, or requires a token (HF_TOKEN)") from error
        except errors.RevisionNotFoundError as error:
            raise SourceError(f"hf://{self._name} has no revision {self._revision}") from error
        except Exception as error:
            raise Unreachable(f"hf://{self._name} cannot be listed: {type(error).__name__}: {error}") from error
        self._commit = info.sha or ""
        return [
            RemoteFile(
                path=file.rfilename,
                size=file.size or 0,
                tag=(file.lfs.sha256 if file.lfs else file.blob_id) or "",
                sha256=file.lfs.sha256 if file.lfs else "",
            )
            for file in info.siblings or []
        ]

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        from huggingface_hub import snapshot_download

        bars: dict[str, Any] = {} if sys.stderr.isatty() else {"tqdm_class": _silent_bar()}
        try:
            snapshot_download(
                self._name,
                revision=self._commit,
                local_dir=folder,
                allow_patterns=[file.path for file in files],
                endpoint=self._endpoint,
                library_name="triton-diffusers",
                max_workers=4,
                **bars,
            )
        except Exception as error:  # the library raises its own, httpx's and system errors
            text = " ".join(str(error).split())[:300]
            raise SourceError(f"hf://{self._name} cannot be downloaded: {type(error).__name__}: {text}") from error
        for file in files:
            path = folder / file.path
            if not path.is_file():
                raise SourceError(f"hf://{self._name} did not send {file.path}")
            if wrong := mismatch(file, path):
                path.unlink()
                raise SourceError(
                    f"hf://{self._name}: {file.path} was damaged during the download: {wrong}; start again"
                )


def _silent_bar() -> Any:
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **{**options, "disable": True})

    return Silent
