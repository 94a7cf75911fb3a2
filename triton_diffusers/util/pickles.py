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

# Bounds on a pickle without its tensors, and so on its memory and time. A checkpoint with its training state takes
# about a hundredth of each.
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_READS = 6_000_000
_MAX_COPIED_ITEMS = 6_000_000
_MAX_CLASSES = 10_000
_MAX_DIMENSIONS = 64  # PyTorch's own limit
_MAX_KEY_ITEMS = 16
_MAX_KEY_DEPTH = 3
_ZIP_SIGNATURE = b"PK\x03\x04"
# Modules that attacks name and trainers never do: a file with one of them is refused.
_HARMFUL_MODULES = frozenset((
    "_pickle", "bdb", "code", "codeop", "commands", "ctypes", "importlib", "marshal", "nt", "os", "pdb", "pickle",
    "pip", "posix", "pty", "pydoc", "runpy", "shutil", "socket", "subprocess", "sys", "timeit", "webbrowser",
))  # fmt: skip
_HARMFUL_BUILTINS = frozenset(("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open"))


class PickleError(ValueError):
    """A file cannot be read; the message says why."""


class HarmfulPickle(PickleError):
    """A file names code that it wants to run."""


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


class Inert:
    """An object in place of one whose class is not loaded; it accepts every operation of a pickle and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Return an object; arguments are ignored."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Return the object itself."""
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""

    def append(self, item: Any) -> None:
        """Keep nothing."""

    def extend(self, items: Any) -> None:
        """Keep nothing."""

    def add(self, item: Any) -> None:
        """Keep nothing."""


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """Return a view of a storage that does not claim more than the storage has."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise PickleError("a tensor has no storage")
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride)):
        raise PickleError("a tensor has an impossible shape")
    if len(size) > _MAX_DIMENSIONS or not all(map(_is_number, (offset, *size, *stride))):
        raise PickleError("a tensor has an impossible shape")
    elements = 1
    for length in size:
        elements *= length
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    available = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if elements > 0 and (last >= available or elements > available):
        raise PickleError("its tensors are larger than the file")
    if elements == 0:
        return torch.empty(size, dtype=storage.dtype)
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


class _Parameters(dict[Any, Any]):
    """PyTorch's ``ParameterDict``, which early textual inversions were saved as."""


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return dict(items)


def _listed(items: Any = (), *_: Any) -> list[Any]:
    return list(items)


def _sized(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _no_default(*_: Any) -> dict[Any, Any]:
    return {}


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,  # the type alone: see ``_Unpickler._call``
    ("torch.nn.modules.container", "ParameterDict"): _Parameters,
    ("torch", "Size"): _sized,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _no_default,
    ("collections", "deque"): _listed,
}
_CALLABLE = tuple(known for known in _KNOWN.values() if known is not torch.UntypedStorage)
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


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
        if (known := _KNOWN.get((module, name))) is not None:
            return known
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
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
        if not any(function is known for known in _CALLABLE):
            return Inert()
        if not isinstance(arguments, tuple | list):
            raise PickleError("a call has no arguments")
        if function is _rebuild:
            return function(*arguments)
        self._count_copied(*arguments[:1])
        if function is _ordered and arguments and not isinstance(arguments[0], dict):
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
        if isinstance(built, _Parameters) and isinstance(state, dict) and isinstance(state.get("_parameters"), dict):
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
        if not isinstance(key, str | int) or not _is_number(elements):
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
