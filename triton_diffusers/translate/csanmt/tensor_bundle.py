"""Read TensorFlow checkpoints (tensor bundles) without TensorFlow.

``<prefix>.index`` is a sorted table in LevelDB's format. Its keys are the names of variables, its values protocol
buffers (``BundleEntryProto``) with type, shape and position of the bytes in ``<prefix>.data-00000-of-00001``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_BLOCK_TRAILER_BYTES = 5  # compression, checksum
_MAX_INDEX_BYTES = 64_000_000
_MAX_ROWS = 100_000
_MAX_KEY_BYTES = 4096
_MAX_SHARDS = 1024
_FLOAT32 = 1  # of TensorFlow's DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers

Array = np.ndarray[Any, np.dtype[np.float32]]
Fields = dict[int, list[int | bytes]]


class BundleError(ValueError):
    """The checkpoint cannot be read; the message is the reason."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The type, shape and position of a variable."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


class TensorBundle(Mapping[str, Array]):
    """The float32 variables of a checkpoint, by name; each is read on access."""

    def __init__(self, prefix: Path) -> None:
        """Read the index.

        Raises:
            BundleError: it is not an index of a checkpoint.
            OSError: a file cannot be read.
        """
        index = prefix.with_name(f"{prefix.name}.index")
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise BundleError(f"{index} is larger than any index")
        try:
            rows = _distinct_rows(index.read_bytes())
            self._entries = {name.decode(): _entry(value) for name, value in rows.items() if name}
            shards = _int(_fields(rows[b""])[1][0])
            if shards > _MAX_SHARDS:
                raise ValueError("too many files")
        except (IndexError, KeyError, ValueError, struct.error) as error:
            raise BundleError(f"{index} is not the index of a TensorFlow checkpoint") from error
        self._shards = [prefix.with_name(f"{prefix.name}.data-{n:05}-of-{shards:05}") for n in range(shards)]

    def __getitem__(self, name: str) -> Array:
        """Return a copy of a variable. Raises ``BundleError`` if its bytes are missing, or ``OSError``."""
        entry = self._entries[name]
        if entry.dtype != _FLOAT32 or entry.size != 4 * prod(entry.shape) or not 0 <= entry.shard < len(self._shards):
            raise BundleError(f"the variable {name} is not an array of float32")
        path = self._shards[entry.shard]
        if entry.offset + entry.size > path.stat().st_size:
            raise BundleError(f"{path} ends within the variable {name}")
        with path.open("rb") as file:
            file.seek(entry.offset)
            array = np.fromfile(file, "<f4", prod(entry.shape))
        return array.reshape(entry.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _distinct_rows(table: bytes) -> dict[bytes, bytes]:
    """Return the rows of a table by key. Blocks may overlap, so that a small table could have any number of them."""
    rows: dict[bytes, bytes] = {}
    size = 0
    for number, (key, value) in enumerate(_rows(table)):
        size += len(value)
        if number >= _MAX_ROWS or size > len(table):
            raise ValueError("more rows than any index has")
        rows[key] = value
    return rows


def _rows(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("no table")
    _, position = _handle(footer, 0)  # of the meta index, which bundles do not use
    root, _ = _handle(footer, position)
    for _, handle in _block(table, root):
        yield from _block(table, _handle(handle, 0)[0])


def _block(table: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block. Keys are stored as differences from the key before."""
    offset, size = handle
    content = table[offset : offset + size]
    if len(content) != size or table[offset + size] != 0:
        raise ValueError("truncated or compressed block")
    end = size - 4 - 4 * struct.unpack("<I", content[-4:])[0]  # the rest are restart points
    position, key = 0, b""
    while position < end:
        shared, position = _varint(content, position)
        unshared, position = _varint(content, position)
        length, position = _varint(content, position)
        if shared + unshared > _MAX_KEY_BYTES:
            raise ValueError("key too long")
        key = key[:shared] + content[position : position + unshared]
        position += unshared
        yield key, content[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Return the offset and size of a block, and the position after them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number stored with seven bits per byte, and the position after it."""
    number = shift = 0
    while shift < 64:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
    raise ValueError("number too long")


def _fields(message: bytes) -> Fields:
    """Return the values of a protocol buffer by field number."""
    found: Fields = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, position = _varint(message, position)
        else:
            if tag & 7 == _BYTES:
                length, position = _varint(message, position)
            else:
                length = {_FIXED64: 8, _FIXED32: 4}[tag & 7]
            value = message[position : position + length]
            position += length
        found.setdefault(tag >> 3, []).append(value)
    return found


def _entry(message: bytes) -> _Entry:
    """Return a ``BundleEntryProto``. Zero values are omitted in its message."""
    fields = _fields(message)
    shape = _fields(_bytes(fields[2][0])) if 2 in fields else {}
    dims = (_fields(_bytes(dim)).get(1, [0])[0] for dim in shape.get(2, []))
    dtype, shard, offset, size = (_int(fields.get(number, [0])[0]) for number in (1, 3, 4, 5))
    return _Entry(dtype, tuple(map(_int, dims)), shard, offset, size)


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("expected a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("expected a message")
    return value
