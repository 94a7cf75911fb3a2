"""Switch a Python that Triton embeds to UTF-8.

Triton's stub starts Python with an isolated pre-configuration (as pybind11's ``scoped_interpreter`` does): the process
stays in the C locale, and neither ``LC_ALL`` nor ``PYTHONUTF8`` is read. File names are then ASCII: others cannot be
opened, and listed ones hold surrogates. CPython has no public call that changes the encoding of file names at run time,
so the codec is changed in the interpreter's state.

The stub's own imports come before: the paths of the model repository and of the Python backend have to be ASCII, which
the launcher ensures.
"""

from __future__ import annotations

import contextlib
import ctypes
import locale
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CellType
from typing import Any

_UTF8 = "utf-8"
_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8")
_MAX_STATE_BYTES = 4 * 2**20  # larger than the interpreter state of any CPython
_SURROGATE_ESCAPE = 2  # of ``_Py_error_handler``
_READ_WRITE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw")


class _FileNameCodec(ctypes.Structure):
    """``struct _Py_unicode_fs_codec`` of CPython 3.11 to 3.13, a part of ``PyInterpreterState``."""

    _fields_ = (
        ("encoding", ctypes.c_void_p),
        ("utf8", ctypes.c_int),
        ("errors", ctypes.c_void_p),
        ("error_handler", ctypes.c_int),
    )


def use_utf8() -> None:
    """Make UTF-8 the encoding of file names, of the environment and of text files, unless it is already.

    Names that were decoded before keep their surrogates, but for the environment and ``sys.path``.

    Raises: OSError: this Python cannot be switched.
    """
    if sys.getfilesystemencoding() == _UTF8:
        return
    paths = [os.fsencode(path) for path in sys.path]
    _file_name_codec().utf8 = 1
    if _file_name_in_bytes("模é") != "模é".encode():
        raise OSError("file names of this Python cannot be made UTF-8; CPython 3.11 to 3.13 is expected")
    sys.getfilesystemencoding = lambda: _UTF8
    # These took the encoding when `os` was imported.
    for function in (os.fsencode, os.fsdecode, os.environ.encodevalue, os.environ.decodevalue):
        _enclosed(function, "encoding").cell_contents = _UTF8
    sys.path[:] = map(os.fsdecode, paths)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding=_UTF8, errors="backslashreplace")  # type: ignore[union-attr]
    for name in _LOCALES:  # the default encoding of `open`, and of file names in C libraries
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            break


def _enclosed(function: Any, name: str) -> CellType:
    """Return the variable ``name`` of the function around ``function``."""
    place: int = function.__code__.co_freevars.index(name)
    cell: CellType = function.__closure__[place]
    return cell


def _file_name_in_bytes(name: str) -> bytes:
    encode = ctypes.pythonapi.PyUnicode_EncodeFSDefault
    encode.restype, encode.argtypes = ctypes.py_object, [ctypes.py_object]
    return bytes(encode(name))


def _file_name_codec() -> _FileNameCodec:
    """Return the codec of the running interpreter. Raises ``OSError`` if it is not found."""
    state = ctypes.pythonapi.PyInterpreterState_Get
    state.restype = ctypes.c_void_p
    start = int(state())
    regions = tuple(_writable_regions())
    expected = sys.getfilesystemencoding().encode(), sys.getfilesystemencodeerrors().encode()
    end = min(_end_of_run(start, regions) - ctypes.sizeof(_FileNameCodec), start + _MAX_STATE_BYTES)
    for address in range(start, end, ctypes.sizeof(ctypes.c_void_p)):
        codec = _FileNameCodec.from_address(address)
        if codec.utf8 or codec.error_handler != _SURROGATE_ESCAPE:
            continue
        texts = codec.encoding, codec.errors
        if all(_holds(place, text, regions) for place, text in zip(texts, expected, strict=True)):
            return codec
    raise OSError("the codec of file names was not found in this Python; CPython 3.11 to 3.13 is expected")


def _writable_regions() -> Iterator[tuple[int, int]]:
    """Yield start and end of each memory region that is readable and writable, in order."""
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        if found := _READ_WRITE.match(line):
            yield int(found[1], 16), int(found[2], 16)


def _end_of_run(start: int, regions: tuple[tuple[int, int], ...]) -> int:
    """Return the end of the adjacent regions that contain ``start``."""
    end = start
    for first, last in regions:
        if first <= end < last:
            end = last
    return end


def _holds(place: int | None, text: bytes, regions: tuple[tuple[int, int], ...]) -> bool:
    """Return True if ``text`` is at ``place``; nothing outside ``regions`` is read."""
    if place is None or not any(first <= place and place + len(text) < last for first, last in regions):
        return False
    return ctypes.string_at(place, len(text) + 1) == text + b"\0"
