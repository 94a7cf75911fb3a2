"""Bounds on what a pickle may cost to read."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.util.test_pickles import HEADER, _archive, _tensor
from triton_diffusers.util import pickles
from triton_diffusers.util.pickle_objects import PickleError
from triton_diffusers.util.pickles import read_pickle


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 2**30) + b".", "", id="bytearray of 1 GB"),
        pytest.param(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "", id="frame longer than the file"),
        pytest.param(
            b"\x80\x04(" + b"N" * 10_000 + b"l\x940ccollections\ndeque\n\x940]" + b"h\x01h\x00\x85Ra" * 1000 + b".",
            "copies more than",
            id="copies of a list",
        ),
        pytest.param(
            b"\x80\x04" + b"".join(b"cm\nN%d\n0" % number for number in range(10_001)) + b"N.",
            "names more than 10000 classes",
            id="classes",
        ),
    ],
)
def test_a_small_file_takes_little_memory(tmp_path: Path, data: bytes, reason: str, legacy: bool) -> None:
    path = tmp_path / "m.ckpt"
    if legacy:
        header = b"".join(pickle.dumps(value, 2) for value in HEADER)
        path.write_bytes(header + data)
    else:
        _archive(path, data)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(PickleError) if not reason else pytest.raises(PickleError, match=reason):
        read_pickle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_the_values_of_a_file_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty set takes a byte in a file, and more than two hundred in memory."""
    monkeypatch.setattr(pickles, "_MAX_READS", 10_000)
    _archive(tmp_path / "m.ckpt", b"\x80\x04(" + b"\x8f" * 10_000 + b"t.")
    with pytest.raises(PickleError, match="it has more than 10000 values beside its tensors"):
        read_pickle(tmp_path / "m.ckpt")


def test_the_bytes_of_a_file_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says how long a pickle of PyTorch's old format is."""
    monkeypatch.setattr(pickles, "_MAX_PICKLE_BYTES", 2**20)
    for data in (b"c" + b"x" * 2**21, b"\x80\x04X" + struct.pack("<I", 2**21) + b"x" * 2**21 + b"."):
        (tmp_path / "m.ckpt").write_bytes(b"".join(pickle.dumps(value, 2) for value in HEADER) + data)
        with pytest.raises(PickleError, match="it has more than 1 MB beside its tensors"):
            read_pickle(tmp_path / "m.ckpt")


NESTED = b")" + b"\x85" * 200_000


NESTED_KEYS = {
    "a dictionary has impossible keys": (
        b"}" + NESTED + b"Ns.",
        b"(" + NESTED + b"Nd.",
        b"}(" + NESTED + b"Nu.",
        b"\x8f(" + NESTED + b"\x90.",
        b"(" + NESTED + b"\x91.",
        b"ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R.",
    ),
    "a tensor has no storage": (b"(X\x07\x00\x00\x00storageN" + NESTED + b"X\x03\x00\x00\x00cpuK\x01tQ.",),
}


def test_nested_keys_do_not_end_the_process(tmp_path: Path) -> None:
    """Python's hash of a tuple calls itself, and crashes: so this is tried in another process."""
    expected = [reason for reason, files in NESTED_KEYS.items() for _ in files]
    files = [tmp_path / f"{number}.ckpt" for number in range(len(expected))]
    for path, data in zip(files, itertools.chain(*NESTED_KEYS.values()), strict=True):
        _archive(path, b"\x80\x04" + data)
    code = (
        "import sys; from pathlib import Path; from triton_diffusers.util.pickles import *\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_pickle(Path(name))\n"
        "    except PickleError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == expected


@pytest.mark.parametrize("data", [b"N(K\x00Nd.", b"NK\x01a.", b"N(K\x01e.", b"]K\x00Ns.", b"N(K\x01\x90."])
def test_items_go_into_containers_alone(tmp_path: Path, data: bytes) -> None:
    _archive(tmp_path / "m.ckpt", b"\x80\x04" + data)
    try:
        assert read_pickle(tmp_path / "m.ckpt") == {0: None}
    except PickleError as error:
        assert "a value is put into something that is not" in str(error)  # noqa: PT017  # either may happen


def test_an_old_file_that_claims_large_storages_is_refused(tmp_path: Path) -> None:
    """In PyTorch's old format a storage is allocated before its content is looked for."""
    header = b"".join(pickle.dumps(value, 2) for value in HEADER)
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x06"
    claim = (2**36).to_bytes(6, "little")
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + claim + b"NtQK\x00(K\x01t(K\x01t\x89NtR."
    (tmp_path / "m.ckpt").write_bytes(header + tensor + pickle.dumps([], 2))
    with pytest.raises(PickleError, match="its tensors are larger than the file"):
        read_pickle(tmp_path / "m.ckpt")


def test_a_tensor_of_a_million_dimensions_is_refused(tmp_path: Path) -> None:
    ones = (1,) * 65
    _archive(tmp_path / "m.ckpt", _tensor(ones, ones), more={"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    with pytest.raises(PickleError, match="a tensor has an impossible shape"):
        read_pickle(tmp_path / "m.ckpt")


def test_a_file_that_begins_as_an_archive_is_checked_as_one(tmp_path: Path) -> None:
    """PyTorch tells an archive by its first bytes, Python by its last."""
    path = tmp_path / "m.ckpt"
    _archive(path, pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes() + bytes(70_000))
    with pytest.raises(PickleError, match="it is a damaged zip archive"):
        read_pickle(path)
