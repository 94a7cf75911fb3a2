"""Read files of ``torch.save`` as data, without running any code that they name.

Checkpoints of trainers name classes that inference does not need: callbacks, optimizers, configs, NumPy scalars. Each
becomes an inert object; tensors and plain values are read.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from triton_diffusers.util.pickle_objects import (
    CALLABLE,
    DTYPES,
    KNOWN,
    HarmfulPickle,
    Inert,
    Parameters,
    PickleError,
    is_number,
    ordered,
    rebuild_tensor,
)

# Bounds on a pickle without its tensors, and so on its memory and time. A checkpoint with its training state takes
# about a hundredth of each.
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_READS = 6_000_000
_MAX_COPIED_ITEMS = 6_000_000
_MAX_CLASSES = 10_000
_MAX_KEY_ITEMS = 16
_MAX_KEY_DEPTH = 3
_ZIP_SIGNATURE = b"PK\x03\x04"
# Modules that attacks name and trainers never do: a file with one of them is refused.
_HARMFUL_MODULES = frozenset((
    "_pickle", "bdb", "code", "codeop", "commands", "ctypes", "importlib", "marshal", "nt", "os", "pdb", "pickle",
    "pip", "posix", "pty", "pydoc", "runpy", "shutil", "socket", "subprocess", "sys", "timeit", "webbrowser",
))  # fmt: skip
_HARMFUL_BUILTINS = frozenset(("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open"))


def read_pickle(path: Path) -> Any:
    """Return what ``torch.save`` has written: containers, plain values, tensors, and inert objects for all else.

    A zip archive, as since PyTorch 1.6, is mapped and not read: tensors are the file's own memory.

    Raises: PickleError: the file is harmful, or in no format of ``torch.save``, or its tensors claim more than it has.
    """
    with path.open("rb") as file:
        # PyTorch looks at the first bytes, Python at the last ones: a file that is a zip archive to either is checked.
        is_zip = file.read(len(_ZIP_SIGNATURE)) == _ZIP_SIGNATURE or zipfile.is_zipfile(file)
    if is_zip:
        _check_archive(path)
    elif _is_tar(path):
        raise PickleError("it is in the format of PyTorch before 0.2; save it again as .safetensors")
    unpickler = type("_FileUnpickler", (_Unpickler,), {"file_bytes": path.stat().st_size})
    reader = SimpleNamespace(__name__="pickles", Unpickler=unpickler, load=lambda file, **_: unpickler(file).load())
    try:
        return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False, mmap=is_zip)
    except PickleError:
        raise
    except Exception as error:  # PyTorch raises many kinds of errors for broken files
        raise PickleError(f"it is not in a format of torch.save ({type(error).__name__})") from error


def _check_archive(path: Path) -> None:
    """Raise ``PickleError`` for an archive that ``torch.save`` does not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise PickleError("it is a damaged zip archive") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise PickleError("it is a compressed archive, which torch.save does not write")
    if any(entry.filename.rpartition("/")[2] == "constants.pkl" for entry in entries):
        raise PickleError("it is a TorchScript archive, which is a program")
    size = path.stat().st_size
    if sum(entry.file_size for entry in entries) > size:
        raise PickleError("it is an archive that unpacks to more than its size")
    if any(entry.file_size > _MAX_PICKLE_BYTES for entry in entries if entry.filename.endswith(".pkl")):
        raise PickleError(f"it has more than {_MAX_PICKLE_BYTES // 2**20} MB beside its tensors")


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


class _Source:
    """A pickle's file, with bounds on the bytes and the number of reads."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._bytes_left, self._reads_left = _MAX_PICKLE_BYTES, _MAX_READS

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        return self._counted(self._file.read(min(size, self._bytes_left + 1)))

    def readline(self) -> bytes:
        """Return the bytes to the end of the line."""
        return self._counted(self._file.readline(self._bytes_left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._bytes_left -= len(data)
        self._reads_left -= 1
        if self._bytes_left < 0:
            raise PickleError(f"it has more than {_MAX_PICKLE_BYTES // 2**20} MB beside its tensors")
        if self._reads_left < 0:
            raise PickleError(f"it has more than {_MAX_READS} values beside its tensors")
        return data


class _Unpickler(pickle._Unpickler):  # the Python implementation, whose every opcode can be overridden
    """An unpickler that makes only containers, plain values, tensors and inert objects."""

    file_bytes: ClassVar[int]
    dispatch: ClassVar[Any] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Any
    pop_mark: Any
    read: Any

    def __init__(self, file: Any, **_: Any) -> None:
        super().__init__(_Source(file))
        self._classes: dict[tuple[str, str], type[Inert]] = {}
        self._storage_bytes: dict[str | int, int] = {}
        self._copied_items = 0

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        is_builtin = module in ("builtins", "__builtin__")
        if root in _HARMFUL_MODULES or (is_builtin and name in _HARMFUL_BUILTINS):
            raise HarmfulPickle(f"{module}.{name}"[:200])
        if (known := KNOWN.get((module, name))) is not None:
            return known
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        key = (module[:100], name[:100])
        if key not in self._classes:
            if len(self._classes) == _MAX_CLASSES:
                raise PickleError(f"it names more than {_MAX_CLASSES} classes")
            self._classes[key] = type(key[1] or "nameless", (Inert,), {"__module__": key[0]})
        return self._classes[key]

    def get_extension(self, code: int) -> None:
        raise PickleError("it needs an extension of pickle")

    def _call(self, function: Any, arguments: Any) -> Any:
        """Call one of our own functions; anything else on the stack is refused."""
        if isinstance(function, type) and issubclass(function, Inert):
            return function()
        if not any(function is known for known in CALLABLE):
            return Inert()
        if not isinstance(arguments, tuple | list):
            raise PickleError("a call has no arguments")
        if function is rebuild_tensor:
            return function(*arguments)
        self._count_copied(*arguments[:1])
        if function is ordered and arguments and not isinstance(arguments[0], dict):
            _check_keys(key for key, _ in arguments[0])
        return function(*arguments)

    def _count_copied(self, items: Any = ()) -> None:
        """Bound the copies that calls make: a small pickle can copy a large list a million times."""
        self._copied_items += len(items) if isinstance(items, tuple | list | dict) else 1
        if self._copied_items > _MAX_COPIED_ITEMS:
            raise PickleError(f"it copies more than {_MAX_COPIED_ITEMS} values")

    def _instantiate(self, function: Any, arguments: Any) -> None:
        self.append(self._call(function, arguments))

    def _load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(self._call(function, arguments))

    def _load_newobj_ex(self) -> None:
        self.stack.pop()
        self._load_reduce()

    def _load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        # The only objects whose attributes are of use.
        if isinstance(built, Parameters) and isinstance(state, dict) and isinstance(state.get("_parameters"), dict):
            self._count_copied(state["_parameters"])
            built.update(state["_parameters"])

    def _load_persistent(self) -> None:
        """Read a storage: ("storage", type, key, location, elements); files of old PyTorch add a view."""
        name = self.stack.pop()
        if isinstance(name, tuple) and len(name) == 4 and name[0] == "module":
            self.append(name[1])  # without the class's source code, which old PyTorch saved, too
            return
        if not isinstance(name, tuple) or len(name) not in (5, 6) or not isinstance(name[0], str | bytes):
            raise PickleError("a tensor has no storage")
        key, elements, view = name[2], name[4], name[5] if len(name) == 6 else None
        if not isinstance(key, str | int) or not is_number(elements):
            raise PickleError("a tensor has no storage")
        if view is not None:
            _check_keys([view])
        itemsize = getattr(getattr(name[1], "dtype", None), "itemsize", 1)
        if key not in self._storage_bytes:
            self._storage_bytes[key] = elements * itemsize
            if sum(self._storage_bytes.values()) > self.file_bytes:
                raise PickleError("its tensors are larger than the file")
        self.append(self.persistent_load(name))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            _check_keys(items[::2])
            target.update(zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Inert):
            raise PickleError("a value is put into something that is not a dictionary")

    def _load_append(self) -> None:
        self._add_items([self.stack.pop()])

    def _load_appends(self) -> None:
        self._add_items(self.pop_mark())

    def _add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            _check_keys(items)
            target.update(items)
        elif not isinstance(target, Inert):
            raise PickleError("a value is put into something that is not a list")

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        _check_keys(items)
        self.append(frozenset(items))

    def _load_frame(self) -> None:
        self.read(8)  # a frame's length; its content is counted as it is read

    def _load_bytearray(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _load_newobj_ex
    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.BINPERSID[0]] = _load_persistent
    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.APPEND[0]] = _load_append
    dispatch[pickle.APPENDS[0]] = _load_appends
    dispatch[pickle.ADDITEMS[0]] = _load_appends
    dispatch[pickle.FROZENSET[0]] = _load_frozenset
    dispatch[pickle.FRAME[0]] = _load_frame
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray


def _check_keys(keys: Iterable[Any]) -> None:
    """Raise ``PickleError`` for a key whose hash crashes Python or takes long."""
    if not all(_is_small(key, _MAX_KEY_DEPTH) for key in keys):
        raise PickleError("a dictionary has impossible keys")


def _is_small(key: Any, depth: int) -> bool:
    if isinstance(key, int):
        return abs(key) < 2**64
    if not isinstance(key, tuple):
        return True
    return depth > 0 and len(key) <= _MAX_KEY_ITEMS and all(_is_small(item, depth - 1) for item in key)
