"""Where a model directory is, whatever it was named by: ``resolve_model_dir``."""

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

from triton_diffusers.downloads.remote import Remote, RemoteFile, SourceError, Unreachable, check
from triton_diffusers.downloads.selection import select
from triton_diffusers.settings import Settings

log = logging.getLogger(__name__)

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)")
_HUB = re.compile(r"(?P<name>[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95})(?:@(?P<revision>[\w-][\w./-]{0,199}))?", re.ASCII)
_BUCKET = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_MANIFEST = "manifest.json"
_CONTENT = "model"


@dataclass(frozen=True)
class _Held:
    """What the cache holds of a source: the files with their paths below the model directory."""

    files: tuple[RemoteFile, ...]

    def missing(self, folder: Path) -> list[str]:
        """Files that are not there, or have another size."""
        return [
            file.path
            for file in self.files
            if not (folder / file.path).is_file() or (folder / file.path).stat().st_size != file.size
        ]


def is_remote(source: str) -> bool:
    """Whether ``source`` is a URL and not a path."""
    return _URL.fullmatch(source) is not None


def resolve_model_dir(source: str, settings: Settings) -> Path:
    """The model directory that ``source`` names, on this machine; fetched, or brought up to date, if it is elsewhere.

    ``source`` is a path, ``hf://owner/name[@revision]``, ``modelscope://owner/name[@revision]`` or
    ``oss://bucket/prefix``. What is fetched lies in ``settings.cache_dir``; with ``settings.offline`` only that is
    used. If the other side cannot be reached, what was fetched at an earlier time is used, with a warning.

    Raises ``SourceError``; what was fetched until then is gone on with the next time.
    """
    if not is_remote(source):
        return Path(source)
    from filelock import FileLock

    place = settings.cache_dir.expanduser().absolute() / "models" / _slug(source)
    folder = place / _CONTENT
    if settings.offline:
        _parse(source)
        return _from_cache(source, place, folder)
    remote = _open(source, settings)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):
            _bring(source, remote, place, folder, settings)
    except OSError as error:
        raise SourceError(f"{source} cannot be fetched into {place}: {error.strerror or error}") from error
    return folder


def _bring(source: str, remote: Remote, place: Path, folder: Path, settings: Settings) -> None:
    held = _read(place / _MANIFEST)
    try:
        listed = remote.files()
    except Unreachable as error:
        if held is None or held.missing(folder):
            raise
        log.warning("%s; using what was fetched before", error)
        return
    check(listed, int(settings.max_source_gigabytes * 1e9), source)
    below, chosen = select(listed, settings.dtype, source)
    wanted = _Held(tuple(_moved(file, below) for file in chosen))
    had = {file.path: file.tag for file in held.files} if held else {}
    missing = set(wanted.missing(folder))
    to_fetch = [
        file
        for file, there in zip(chosen, wanted.files, strict=True)
        if there.path in missing or had.get(there.path) != file.tag
    ]
    if to_fetch:
        size = sum(file.size for file in to_fetch) / 1e9
        log.info("fetching %s: %d files, %.2f GB, into %s", source, len(to_fetch), size, folder)
        (folder / below).mkdir(parents=True, exist_ok=True)
        # From here on the cache does not hold one state of the source, until the new manifest says so.
        (place / _MANIFEST).unlink(missing_ok=True)
        remote.fetch(to_fetch, folder / below)
        log.info("fetched %s", source)
    for gone in had.keys() - {file.path for file in wanted.files}:
        (folder / gone).unlink(missing_ok=True)
    _write(place / _MANIFEST, {"source": source, "files": [asdict(file) for file in wanted.files]})


def _from_cache(source: str, place: Path, folder: Path) -> Path:
    held = _read(place / _MANIFEST)
    if held is None:
        raise SourceError(f"{source} is not in the cache {place}, and nothing is fetched offline")
    if missing := held.missing(folder):
        raise SourceError(
            f"{source} is not whole in the cache: {missing[0]} ({len(missing)} missing); offline, nothing is fetched"
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
    from triton_diffusers.downloads.oss import OssFolder

    return OssFolder(parts["bucket"] or "", (parts["prefix"] or "").strip("/"), settings)


def _parse(source: str) -> tuple[str, Mapping[str, str | None]]:
    url = _URL.fullmatch(source)
    if url is None or url["scheme"] not in ("hf", "modelscope", "oss"):
        raise SourceError(f"{source!r} is not a model directory: a path, hf://, modelscope:// or oss:// is expected")
    scheme = url["scheme"]
    match = (_BUCKET if scheme == "oss" else _HUB).fullmatch(url["rest"])
    if match is None or ".." in url["rest"].split("/"):
        form = "bucket/prefix" if scheme == "oss" else "owner/name[@revision]"
        raise SourceError(f"{source!r} is invalid: {scheme}://{form} is expected")
    return scheme, match.groupdict()


def _slug(source: str) -> str:
    """A folder's name for people to recognise, made unique by a hash (of the hub, too: there are mirrors)."""
    hubs = [os.environ.get(name, "") for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT")]
    hub = {"hf": hubs[0], "modelscope": hubs[1]}.get(source.split("://")[0], "")
    digest = hashlib.sha256(f"{hub} {source}".encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', source)[:80].strip('.-')}-{digest}"


def _moved(file: RemoteFile, below: str) -> RemoteFile:
    return RemoteFile(f"{below}/{file.path}" if below else file.path, file.size, file.tag, file.sha256, file.crc64)


def _read(path: Path) -> _Held | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return _Held(tuple(RemoteFile(**file) for file in content["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    nascent = path.with_suffix(".new")
    nascent.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    nascent.replace(path)
