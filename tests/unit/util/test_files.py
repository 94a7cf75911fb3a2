"""Files are written whole, and locks are held until every holder is gone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from triton_diffusers.util.files import atomic_write, file_identity, fsync_tree, locked, open_locked


def test_atomic_write_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "模"
    atomic_write(path, "é\n")
    assert path.read_text(encoding="utf-8") == "é\n"
    atomic_write(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert [path.name for path in tmp_path.iterdir()] == ["模"]


def test_atomic_write_failing_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_atomic_write_sets_the_mode_before_the_content(tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", "secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_file_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    before = file_identity(path)
    assert file_identity(path) == before == (str(path), 1, path.stat().st_mtime_ns)
    os.utime(path, ns=(1, 1))
    assert file_identity(path) != before


def test_fsync_tree_reaches_every_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    fsync_tree(tmp_path)


def test_lock_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock), pytest.raises(BlockingIOError):
        open_locked(lock, wait=False)
    os.close(open_locked(lock, wait=False))


def test_lock_is_held_by_children_that_inherit_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    descriptor = open_locked(lock)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)
    with pytest.raises(BlockingIOError):
        open_locked(lock, wait=False)
    child.communicate(b"\n")
    os.close(open_locked(lock, wait=False))


def test_missing_lock_is_created_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_locked(tmp_path / "lock", create=False)
