"""Pickles are read as data: trainers' extras are left out, and nothing that a file names is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import os
import pathlib
import pickle
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

from triton_diffusers.util.pickle_objects import HarmfulPickle, Inert, PickleError
from triton_diffusers.util.pickles import read_pickle

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
