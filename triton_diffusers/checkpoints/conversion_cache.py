"""The cache of converted checkpoints: each file is converted once, across starts and crashes of servers.

The result is ``<stem>.converted/`` beside the file or, if that is read-only, in the cache directory. A conversion gets
its final name only when it is complete. Its ``source.json`` records its inputs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.util.files import file_identity, locked

log = logging.getLogger(__name__)

_VERSION = 2  # of the conversion: raise it when its output changes
_MANIFEST = "source.json"


@dataclass(frozen=True)
class _Input:
    """A file that the result depends on; its path is relative to the checkpoint's folder, ``mtime`` in nanoseconds."""

    path: str
    size: int
    mtime: int
    sha256: str = ""


def converted(
    source: Path, cache_dir: Path, convert: Callable[[Path, Path], None], *, beside: Sequence[Path] | None = None
) -> Path:
    """Return the folder that ``source`` was converted to, calling ``convert(source, folder)`` if none is up to date.

    ``beside`` are other files that the result depends on, in or below the folder of ``source``; by default its sidecar.

    Raises: LoadError: it cannot be converted or written.
    """
    source = source.absolute()
    files = (source, *(Sidecar(source).files if beside is None else (path.absolute() for path in beside)))
    near = source.with_suffix(".converted")
    name = hashlib.sha256(str(source).encode()).hexdigest()[:16]
    elsewhere = cache_dir / "converted" / f"{source.stem}-{name}"
    for folder in (near, elsewhere):
        if _is_fresh(folder, files):
            return folder
    folder = near if _is_writable(source.parent) else elsewhere
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not _is_fresh(folder, files):  # another server may have converted it during the wait
                _make(folder, files, convert)
    except OSError as error:
        raise LoadError(f"{source} cannot be converted into {folder}: {one_line(error)}") from error
    return folder


def _make(folder: Path, files: Sequence[Path], convert: Callable[[Path, Path], None]) -> None:
    source = files[0]
    prefix = f"{folder.name}.unfinished-"
    for left in folder.parent.glob(f"{prefix}*"):  # of conversions that were killed, as this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    log.info("converting %s; this is done once", source)
    begun = time.monotonic()
    before = [_seen(path, source) for path in files]
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        convert(source, unfinished)
        inputs = [_seen(path, source, with_hash=True) for path in files]
        if before != [_Input(item.path, item.size, item.mtime) for item in inputs]:
            raise LoadError(f"{source} or what lies beside it was changed while it was converted; start again")
        manifest = {"version": _VERSION, "inputs": [asdict(item) for item in inputs]}
        (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        if folder.exists():
            folder.rename(unfinished / "outdated")
            shutil.rmtree(unfinished / "outdated")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    log.info("converted %s in %.0f s into %s", source, time.monotonic() - begun, folder)


def _is_fresh(folder: Path, files: Sequence[Path]) -> bool:
    """Return True if ``folder`` was made of the current files; contents are read only if a time has changed."""
    source = files[0]
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        made_of = {item["path"]: _Input(**item) for item in manifest["inputs"]}
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if version != _VERSION or made_of.keys() != {_name(path, source) for path in files}:
        return False
    return all(_is_same(made_of[_name(path, source)], path, source) for path in files)


def _is_same(then: _Input, path: Path, source: Path) -> bool:
    now = _seen(path, source)
    if now.size != then.size:
        return False
    return now.mtime == then.mtime or _seen(path, source, with_hash=True).sha256 == then.sha256


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source.parent).as_posix()


def _seen(path: Path, source: Path, *, with_hash: bool = False) -> _Input:
    _, size, mtime = file_identity(path)
    digest = ""
    if with_hash:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _Input(_name(path, source), size, mtime, digest)


def _is_writable(folder: Path) -> bool:
    """Return True if a file can be created there; permissions alone do not reveal a read-only mount."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
