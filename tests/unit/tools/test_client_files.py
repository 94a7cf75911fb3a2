"""The client's committed modules are the generated ones."""

from __future__ import annotations

from pathlib import Path

from tools.client_files import CLIENT, files, write


def test_committed_modules_are_the_generated_ones() -> None:
    for name, text in files().items():
        assert (CLIENT / name).read_text() == text, "run `make generated`"


def test_writing_creates_these_files(tmp_path: Path) -> None:
    write(tmp_path)
    made = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.py")}
    assert made == dict(files())
