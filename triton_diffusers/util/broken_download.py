"""Detection of weight files whose download went wrong."""

from __future__ import annotations

from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_MAX_START = 64  # bytes


def download_fault(path: Path) -> str | None:
    """Return the fault of a file that does not hold weights, with its remedy; None for any other file."""
    try:
        with path.open("rb") as file:
            start = file.read(_MAX_START)
    except OSError:
        return None
    if not start:
        return "it is empty: download it again"
    if start.startswith(_POINTER):
        return "it is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return "it is a web page, not weights: download it again; the page may say what is missing, such as a login"
    return None
