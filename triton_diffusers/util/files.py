"""Atomic writes, locks and the identity of files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

FileIdentity = tuple[str, int, int]
"""Path, size and modification time (nanoseconds) of a file."""


def file_identity(path: Path) -> FileIdentity:
    """Return a value that differs for every other file and for every other version of this one."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Replace a file as a whole; readers see the old content or the new one, after a power failure, too.

    ``mode`` is subject to the umask. Text is written as UTF-8.
    """
    content = memoryview(data.encode() if isinstance(data, str) else data)
    temporary = path.with_name(f".new-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush a folder and everything below it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def open_locked(path: Path, *, wait: bool = True, create: bool = True) -> int:
    """Open a lock file and lock it; return the descriptor that holds the lock.

    The lock is released once this process and every child that inherited the descriptor have closed it, at the latest
    when they end.

    Raises: BlockingIOError: it is locked, and ``wait`` is False. OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, which is created if it is missing."""
    descriptor = open_locked(path)
    try:
        yield
    finally:
        os.close(descriptor)
