"""Resolve the name of a model directory to a local folder, downloading it if it is remote."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triton_diffusers.downloads import buckets
from triton_diffusers.downloads.remote import Remote, RemoteFile, SourceError, Unreachable, check
from triton_diffusers.downloads.selection import select
from triton_diffusers.settings import Settings
from triton_diffusers.util.files import atomic_write, locked

log = logging.getLogger(__name__)

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)")
_HUB = re.compile(r"(?P<name>[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95})(?:@(?P<revision>[\w-][\w./-]{0,199}))?", re.ASCII)
_BUCKETS = {
    "oss": re.compile(r"(?P<bucket>[a-z0-9][a-z0-9-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?"),
    "s3": re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?"),
}
_MANIFEST = "manifest.json"
_CONTENT = "model"


@dataclass(frozen=True)
class _CachedSource:
    """The cached files of a source, with their paths below the model directory."""

    files: tuple[RemoteFile, ...]

    def missing(self, folder: Path) -> list[str]:
        """Return the files that are missing or have another size."""
        return [
            file.path
            for file in self.files
            if not (folder / file.path).is_file() or (folder / file.path).stat().st_size != file.size
        ]


def is_remote(source: str) -> bool:
    """Return True if ``source`` is a URL rather than a path."""
    return _URL.fullmatch(source) is not None


def resolve_model_dir(source: str, settings: Settings) -> Path:
    """Return the local model directory of ``source``, after downloading or updating it if it is remote.

    ``source`` is a path, ``hf://owner/name[@revision]``, ``modelscope://owner/name[@revision]``,
    ``oss://bucket/prefix`` or ``s3://bucket/prefix``. Downloads are kept in ``settings.cache_dir``, and with
    ``settings.offline`` only these are used. If the source is unreachable, an earlier download is used, with a warning.

    Raises: SourceError: the source cannot be used; an interrupted download is resumed by the next call.
    """
    if not is_remote(source):
        return Path(source)
    place = settings.cache_dir.expanduser().absolute() / "models" / _slug(source)
    folder = place / _CONTENT
    if settings.offline:
        _parse(source)
        return _from_cache(source, place, folder)
    remote = _open(source, settings)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with locked(place / "lock"):
            _update(source, remote, place, folder, settings)
    except OSError as error:
        raise SourceError(f"{source} cannot be downloaded to {place}: {error.strerror or error}") from error
    return folder


def _update(source: str, remote: Remote, place: Path, folder: Path, settings: Settings) -> None:
    cached = _read(place / _MANIFEST)
    try:
        listed = remote.files()
    except Unreachable as error:
        if cached is None or cached.missing(folder):
            raise
        log.warning("%s; using the earlier download", error)
        return
    check(listed, int(settings.max_source_gigabytes * 1e9), source)
    below, chosen = select(listed, settings.dtype, source)
    wanted = _CachedSource(tuple(_moved(file, below) for file in chosen))
    had = {file.path: file.tag for file in cached.files} if cached else {}
    missing = set(wanted.missing(folder))
    to_fetch = [
        file
        for file, target in zip(chosen, wanted.files, strict=True)
        if target.path in missing or had.get(target.path) != file.tag
    ]
    if to_fetch:
        size = sum(file.size for file in to_fetch) / 1e9
        log.info("downloading %s: %d files, %.2f GB, to %s", source, len(to_fetch), size, folder)
        (folder / below).mkdir(parents=True, exist_ok=True)
        # Until the new manifest is written, the cache holds a mixture of two states of the source.
        (place / _MANIFEST).unlink(missing_ok=True)
        remote.fetch(to_fetch, folder / below)
        log.info("downloaded %s", source)
    for gone in had.keys() - {file.path for file in wanted.files}:
        (folder / gone).unlink(missing_ok=True)
    manifest = {"source": source, "files": [asdict(file) for file in wanted.files]}
    atomic_write(place / _MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _from_cache(source: str, place: Path, folder: Path) -> Path:
    cached = _read(place / _MANIFEST)
    if cached is None:
        raise SourceError(f"{source} is not in the cache {place}, and cannot be downloaded: offline mode is set")
    if missing := cached.missing(folder):
        raise SourceError(
            f"{source} is incomplete in the cache: {missing[0]} ({len(missing)} missing), and cannot be downloaded: "
            "offline mode is set"
        )
    return folder


def _open(source: str, settings: Settings) -> Remote:
    scheme, parts = _parse(source)
    if scheme == "hf":
        from triton_diffusers.downloads.huggingface import HuggingFaceRepository

        return HuggingFaceRepository(parts["name"] or "", parts["revision"])
    if scheme == "modelscope":
        from triton_diffusers.downloads.modelscope import ModelScopeRepository

        return ModelScopeRepository(parts["name"] or "", parts["revision"])
    return buckets.open_folder(scheme, parts["bucket"] or "", (parts["prefix"] or "").strip("/"), settings)


def _parse(source: str) -> tuple[str, Mapping[str, str | None]]:
    url = _URL.fullmatch(source)
    if url is None or url["scheme"] not in ("hf", "modelscope", *buckets.SCHEMES):
        expected = "a path, hf://, modelscope://, oss:// or s3://"
        raise SourceError(f"{source!r} is not a model directory: expected {expected}")
    scheme = url["scheme"]
    match = _BUCKETS.get(scheme, _HUB).fullmatch(url["rest"])
    if match is None or ".." in url["rest"].split("/"):
        form = "bucket/prefix" if scheme in buckets.SCHEMES else "owner/name[@revision]"
        raise SourceError(f"{source!r} is invalid: expected {scheme}://{form}")
    return scheme, match.groupdict()


def _slug(source: str) -> str:
    """Return a readable folder name, unique by a hash of source and hub (there are mirrors)."""
    hubs = [os.environ.get(name, "") for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT")]
    hub = {"hf": hubs[0], "modelscope": hubs[1]}.get(source.split("://")[0], "")
    digest = hashlib.sha256(f"{hub} {source}".encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', source)[:80].strip('.-')}-{digest}"


def _moved(file: RemoteFile, below: str) -> RemoteFile:
    return RemoteFile(f"{below}/{file.path}" if below else file.path, file.size, file.tag, file.sha256, file.crc64)


def _read(path: Path) -> _CachedSource | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return _CachedSource(tuple(RemoteFile(**file) for file in content["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
