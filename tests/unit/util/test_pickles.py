"""Pickles are read as data: trainers' extras are left out, and nothing that a file names is run."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import functools
import itertools
import os
import pathlib
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triton_diffusers.util import pickles
from triton_diffusers.util.pickles import HarmfulPickle, Inert, PickleError, read_pickle

# What PyTorch's old format begins with.
HEADER: tuple[Any, ...] = (0x1950A86A20F9469CFC6C, 1001, {})

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.float16), "step": torch.tensor(7)}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(content: Any, *, legacy: bool = False) -> Path:
        torch.save(content, tmp_path / "m.ckpt", _use_new_zipfile_serialization=not legacy)
        return tmp_path / "m.ckpt"

    return save


def lightning(name: str, **attributes: Any) -> Any:
    """Return a class of a library that is not installed."""
    module = "pytorch_lightning.callbacks.model_checkpoint"
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", module):
        sys.modules.setdefault(part, types.ModuleType(part))
    found = type(name, (), {"__module__": module, **attributes})
    setattr(sys.modules[module], name, found)
    return found


@pytest.fixture(autouse=True)
def without_lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)


class ListOfOthers(list[Any]):
    """As configs of other libraries are."""


class DictOfOthers(dict[Any, Any]):
    """As configs of other libraries are."""


def with_attributes(found: Any) -> Any:
    found.own = {"nested": [1, 2]}
    return found


EXTRAS = {
    "callback": lambda: {lightning("ModelCheckpoint"): {"monitor": "val/loss"}},
    "callback's state": lambda: with_attributes(lightning("Callback")()),
    "numpy": lambda: [np.int64(3), np.float32(0.5), np.dtype("float16"), np.arange(3), np.random.default_rng(1)],
    "optimizer": lambda: torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict(),
    "optimizer itself": lambda: torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1),
    "module": lambda: torch.nn.Linear(2, 2),
    "namespace": lambda: argparse.Namespace(lr=1e-4, path=pathlib.PurePosixPath("x")),
    "time": lambda: [datetime.datetime(2023, 5, 1, tzinfo=datetime.UTC), datetime.timedelta(days=1)],
    "collections": lambda: [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.deque([1, 2]),
        collections.Counter("aab"),
    ],
    "subclasses": lambda: [ListOfOthers([1, 2]), DictOfOthers(a=1), {1, 2}, frozenset([3]), slice(1, 2), complex(1, 2)],
    "functions": lambda: [functools.partial(len), len, torch.nn.functional.relu, dict.fromkeys],
    "torch": lambda: [torch.Size([1, 2]), torch.device("cpu"), torch.float16, torch.Generator().get_state()],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", EXTRAS)
def test_trainers_extras_become_inert(save: Callable[..., Path], name: str, legacy: bool) -> None:
    extra = EXTRAS[name]()
    path = save({"extra": extra, "state_dict": TENSORS, "global_step": 470000}, legacy=legacy)
    content = read_pickle(path)
    assert content["global_step"] == 470000
    assert content["state_dict"].keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert torch.equal(content["state_dict"][key], tensor)
        assert content["state_dict"][key].dtype == tensor.dtype


def test_a_module_that_is_named_is_not_imported(save: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "harmless_name.py").write_text("raise AssertionError('it was imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        path = tmp_path / "m.ckpt"
        _archive(path, b"\x80\x02charmless_name\nThing\n)\x81.")
        assert isinstance(read_pickle(path), Inert)
    finally:
        sys.path.remove(str(tmp_path))


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("function", ["system", "eval", "exec", "import", "popen", "nested"])
def test_harm_is_refused(save: Callable[..., Path], tmp_path: Path, function: str, legacy: bool) -> None:
    trace = tmp_path / "it-ran"
    code = f"open({str(trace)!r}, 'w')"
    harm = {
        "system": Calls(os.system, f"touch {trace}"),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "import": Calls(__import__, "antigravity"),
        "popen": Calls(subprocess.Popen, ["touch", str(trace)]),
        "nested": Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {trace}"))),
    }[function]
    with pytest.raises(HarmfulPickle):
        read_pickle(save({"state_dict": TENSORS, "x": harm}, legacy=legacy))
    assert not trace.exists()


def _archive(
    path: Path, data: bytes, *, compression: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": data, "byteorder": b"little", "version": b"3\n", **(more or {})}.items():
            archive.writestr(f"m/{name}", content)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"cbuiltins\ngetattr\n(ctorch\nload\nX\x08\x00\x00\x00__init__tR.", id="getattr"),
        pytest.param(b"ctorch\nload\n(X\x01\x00\x00\x00xtR.", id="torch.load"),
        pytest.param(b"ctorch.hub\nload\n(X\x01\x00\x00\x00xtR.", id="torch.hub"),
        pytest.param(b"ctorch.storage\n_load_from_bytes\n(Xx\x00\x00\x00" + b"x" * 0x78 + b"tR.", id="nested torch"),
        pytest.param(b"(X\x01\x00\x00\x00xidatetime\ndatetime\n.", id="INST"),
        pytest.param(b"(cdatetime\ndatetime\nK\x01o.", id="OBJ"),
        pytest.param(b"ccollections\nOrderedDict\n(X\x08\x00\x00\x00__init__K\x01dN\x86b.", id="BUILD on a class"),
        pytest.param(b"ccollections\nOrderedDict\n)RR.", id="stack is too short"),
    ],
)
def test_tricks_come_to_nothing(tmp_path: Path, data: bytes) -> None:
    before = dict(vars(collections.OrderedDict))
    _archive(tmp_path / "m.ckpt", b"\x80\x02" + data)
    try:
        found = read_pickle(tmp_path / "m.ckpt")
    except PickleError:
        found = None
    assert not isinstance(found, torch.Tensor | datetime.datetime)
    assert dict(vars(collections.OrderedDict)) == before


def _tensor(size: tuple[int, ...], stride: tuple[int, ...], *, offset: int = 0, numel: int = 4) -> bytes:
    """Return the pickle of a tensor on the storage ``0``, which may claim what it likes."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(numel) + b"tQ"
    )
    rest = number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"\x89N" + b"tR."


def test_a_tensor_by_hand(tmp_path: Path) -> None:
    _archive(tmp_path / "m.ckpt", _tensor((2, 2), (2, 1)), more={"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    assert torch.equal(read_pickle(tmp_path / "m.ckpt"), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(
    "claim",
    [
        {"size": (5,), "stride": (1,)},
        {"size": (2,), "stride": (4,)},
        {"size": (2,), "stride": (1,), "offset": 3},
        {"size": (2**40,), "stride": (0,)},
        {"size": (2**60,), "stride": (1,), "numel": 2**60},
        {"size": (2**40,), "stride": (1,), "numel": 2**40},
        {"size": (-1,), "stride": (1,)},
        {"size": (1,), "stride": (1,), "offset": -1},
        {"size": (1,), "stride": (1,), "numel": -4},
        {"size": (2, 2), "stride": (1,)},
    ],
)
def test_more_than_the_file_has_is_refused(tmp_path: Path, claim: dict[str, Any]) -> None:
    _archive(tmp_path / "m.ckpt", _tensor(**claim), more={"data/0": struct.pack("<4f", 1, 2, 3, 4)})
    with pytest.raises(PickleError):
        read_pickle(tmp_path / "m.ckpt")


def test_archives_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    _archive(path, pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED, more={"data/0": bytes(2**22)})
    with pytest.raises(PickleError, match="it is a compressed archive"):
        read_pickle(path)
    _archive(path, pickle.dumps({}, 2), more={"constants.pkl": b"x"})
    with pytest.raises(PickleError, match="it is a TorchScript archive, which is a program"):
        read_pickle(path)
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "pickle")
    with pytest.raises(PickleError, match=r"save it again as \.safetensors"):
        read_pickle(path)
    path.write_bytes(b"junk")
    with pytest.raises(PickleError, match=r"it is not in a format of torch\.save"):
        read_pickle(path)


def test_a_large_number_in_a_pickle_takes_no_memory(tmp_path: Path) -> None:
    """Python's own reader in C makes a table as long as the largest number of a memo."""
    _archive(tmp_path / "m.ckpt", b"\x80\x02K\x01r\xff\xff\xff\x7f.")
    assert read_pickle(tmp_path / "m.ckpt") == 1


def test_a_parameter_dict_has_its_parameters(save: Callable[..., Path]) -> None:
    content = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 3))})
    found = read_pickle(save({"string_to_param": content}))["string_to_param"]
    assert torch.equal(found["*"], torch.ones(2, 3))


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
