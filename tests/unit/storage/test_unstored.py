"""The folder for images that could not be stored: what others do with it meanwhile costs no image."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.errors import StorageFailure
from triton_diffusers.storage.unstored import UnstoredFolder


def test_files_that_vanish_while_they_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = UnstoredFolder(tmp_path / "held", 100)
    (held,) = folder.save(["a/1.png"], [b"x" * 90])
    listed = list((tmp_path / "held").rglob("*"))
    folder.discard([held])
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter(listed))
    assert folder.save(["a/2.png"], [b"x" * 90])


def test_links_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "link").symlink_to(tmp_path / "large")
    folder = UnstoredFolder(tmp_path / "held", 100)
    assert folder.save(["a/1.png"], [b"x" * 90])
    with pytest.raises(StorageFailure, match="has no room"):
        folder.save(["a/2.png"], [b"x" * 90])


def test_a_file_that_cannot_be_removed_costs_nobody_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = UnstoredFolder(tmp_path / "held", 100)
    held = folder.save(["a/1.png"], [b"x"])

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "not permitted")

    monkeypatch.setattr(Path, "unlink", fail)
    folder.discard(held)
    assert "1.png cannot be removed: not permitted" in caplog.text
