"""Resumable downloads: interrupted files continue, are verified, and get their name only when complete."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from triton_diffusers.downloads.remote import Interrupted, RemoteFile, SourceError
from triton_diffusers.util.backoff import backoff

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes; the maximum loss of a broken connection
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.5  # doubled after each attempt
_LOG_INTERVAL_SECONDS = 10.0

# Opens a file at an offset and yields its content from there. Raises ``Interrupted``, also while it is read.
Open = Callable[[RemoteFile, int], Iterator[bytes]]


def download(files: Sequence[RemoteFile], folder: Path, open_at: Open) -> None:
    """Download ``files`` to their paths below ``folder``.

    A present file with the right hash is kept; a file without a hash is downloaded again.

    Raises: SourceError: a file cannot be downloaded, or differs from the listing.
    """
    with closing(_Progress(sum(file.size for file in files))) as progress:
        for file in files:
            _download(file, folder / file.path, open_at, progress)


def _download(file: RemoteFile, target: Path, open_at: Open, progress: _Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name contains the tag: a part of an older version is not resumed.
    name = hashlib.sha256(f"{target.name}/{file.tag}".encode()).hexdigest()[:32]
    part = target.with_name(f".{name}.part")
    if (file.sha256 or file.crc64) and target.is_file() and not mismatch(file, target):
        progress.done(file.size)
        return
    for attempt in range(_ATTEMPTS):
        done = part.stat().st_size if part.exists() else 0
        if done > file.size:
            part.unlink()
            done = 0
        progress.at(file.path, done)
        try:
            with part.open("ab") as opened:
                if done < file.size:
                    for piece in open_at(file, done):
                        done += len(piece)
                        if done > file.size:
                            raise SourceError(f"{file.path} is refused: it is longer than the {file.size} bytes listed")
                        opened.write(piece)
                        progress.at(file.path, done)
                opened.flush()
                os.fsync(opened.fileno())
            if done == file.size:
                break
            raise Interrupted(f"{file.path} ended after {done} of {file.size} bytes")
        except Interrupted as error:
            if attempt == _ATTEMPTS - 1:
                raise SourceError(f"{error}; tried {_ATTEMPTS} times, the next start resumes from there") from error
            log.info("%s; resuming from there", error)
            time.sleep(backoff(attempt, first=_FIRST_PAUSE_SECONDS))
        except SourceError:
            part.unlink(missing_ok=True)
            raise
    if wrong := mismatch(file, part):
        part.unlink()
        raise SourceError(f"{file.path} was damaged during the download: {wrong}; start again")
    part.replace(target)
    progress.done(file.size)


def mismatch(file: RemoteFile, path: Path) -> str:
    """Return how ``path`` differs from ``file``; empty if size and hash match, as far as the source gives them."""
    if (size := path.stat().st_size) != file.size:
        return f"it has {size} bytes, not {file.size}"
    checks: list[tuple[str, Any, Callable[[Any], str], str]] = []
    if file.sha256:
        checks.append(("SHA-256", hashlib.sha256(), lambda state: str(state.hexdigest()), file.sha256.lower()))
    elif file.crc64:
        from oss2.utils import Crc64

        checks.append(("CRC-64", Crc64(), lambda state: str(state.crc), file.crc64))
    for name, state, read, expected in checks:
        with path.open("rb") as opened:
            while piece := opened.read(CHUNK):
                state.update(piece)
        if (found := read(state)) != expected:
            return f"its {name} is {found}, not {expected}"
    return ""


class _Progress:
    """A bar on a terminal, otherwise a log line at intervals."""

    def __init__(self, total: int) -> None:
        self._total, self._finished, self._said = total, 0, time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="B", unit_scale=True)

    def at(self, name: str, done: int) -> None:
        """Report the bytes of the file ``name`` downloaded so far."""
        total_done = self._finished + done
        if self._bar is not None:
            self._bar.set_description(name, refresh=False)
            self._bar.update(total_done - self._bar.n)
        elif time.monotonic() - self._said > _LOG_INTERVAL_SECONDS:
            self._said = time.monotonic()
            log.info("%.2f of %.2f GB, at %s", total_done / 1e9, self._total / 1e9, name)

    def done(self, size: int) -> None:
        """Count a completed file."""
        self._finished += size

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
