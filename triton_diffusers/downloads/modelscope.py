"""Repositories of ModelScope, by the hub's HTTP API: a list of files, and each file with ranges.

The hub's client library is not used: for these two requests it needs a dozen settings and a cache of its own, and
``download`` resumes already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from triton_diffusers.downloads.download import CHUNK, download
from triton_diffusers.downloads.remote import Interrupted, RemoteFile, SourceError, Unreachable

_ENDPOINT = "https://www.modelscope.cn"
_TIMEOUTS = (10.0, 60.0)  # seconds to connect, and of silence


class ModelScopeRepository:
    """A model repository at one revision; MODELSCOPE_ENDPOINT overrides the hub, MODELSCOPE_API_TOKEN is sent."""

    def __init__(self, name: str, revision: str | None) -> None:
        try:
            import requests
        except ImportError as error:
            raise SourceError("modelscope:// needs requests; install triton-diffusers[modelscope]") from error
        self._requests: Any = requests
        self._session = requests.Session()
        if token := os.environ.get("MODELSCOPE_API_TOKEN"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._name, self._revision = name, revision or "master"
        endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or _ENDPOINT
        self._url = f"{endpoint.rstrip('/')}/api/v1/models/{quote(name)}/repo"

    def files(self) -> Sequence[RemoteFile]:
        query = {"Revision": self._revision, "Recursive": "true"}
        try:
            answer = self._session.get(f"{self._url}/files", params=query, timeout=_TIMEOUTS)
            if answer.status_code >= 500:
                raise Unreachable(f"modelscope://{self._name} cannot be listed: HTTP {answer.status_code}")
            if answer.status_code != 200:
                raise SourceError(
                    f"modelscope://{self._name} at {self._revision} does not exist, or requires a token "
                    f"(MODELSCOPE_API_TOKEN): HTTP {answer.status_code}"
                )
            entries = answer.json()["Data"]["Files"]
            return [
                RemoteFile(
                    path=str(entry["Path"]),
                    size=int(entry["Size"]),
                    tag=str(entry.get("Sha256") or entry.get("Revision") or ""),
                    sha256=str(entry.get("Sha256") or ""),
                )
                for entry in entries
                if entry.get("Type") != "tree"
            ]
        except self._requests.RequestException as error:
            raise Unreachable(f"modelscope://{self._name} cannot be listed: {type(error).__name__}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"modelscope://{self._name}: the response is not a list of files") from error

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        download(files, folder, self._open)

    def _open(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        query = {"Revision": self._revision, "FilePath": file.path}
        # With compression, neither sizes nor ranges would be those of the file.
        headers = {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
        try:
            with self._session.get(self._url, params=query, headers=headers, stream=True, timeout=_TIMEOUTS) as answer:
                if answer.status_code >= 500 or answer.status_code == 429:
                    raise Interrupted(f"{file.path}: HTTP {answer.status_code}")
                if answer.status_code not in (200, 206):
                    raise SourceError(f"modelscope://{self._name}: {file.path} was refused: HTTP {answer.status_code}")
                # 200: the hub has ignored the range, which it may do.
                skip = offset if answer.status_code == 200 else 0
                for piece in answer.iter_content(CHUNK):
                    if skip < len(piece):
                        yield piece[skip:]
                    skip = max(0, skip - len(piece))
        except self._requests.RequestException as error:
            raise Interrupted(f"{file.path}: {type(error).__name__}") from error
