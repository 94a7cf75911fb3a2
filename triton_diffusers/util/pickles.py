"""Files of ``torch.save`` read as data: no code that they name is run, whatever it is.

Checkpoints of trainers name classes that nobody needs for drawing: callbacks, optimizers, configs, numbers of NumPy.
Each becomes an inert object, and tensors and plain values are read around it.
"""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

_MAX_PICKLE_BYTES = 64 * 2**20  # without the tensors, which are beside it in a zip archive
# Names that no trainer writes, and every attack: a file with one of them is refused.
_HARMFUL_MODULES = frozenset((
    "_pickle", "bdb", "code", "codeop", "commands", "ctypes", "importlib", "marshal", "nt", "os", "pdb", "pickle",
    "pip", "posix", "pty", "pydoc", "runpy", "shutil", "socket", "subprocess", "sys", "timeit", "webbrowser",
))  # fmt: skip
_HARMFUL_BUILTINS = frozenset(("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open"))


class PickleError(ValueError):
    """A file is not read; the message says why."""


class HarmfulPickle(PickleError):
    """A file names code that it wants to be run."""


def read_pickle(path: Path) -> Any:
    """Return what ``torch.save`` has written: containers, plain values, tensors, and inert objects for all else.

    A zip archive, as since PyTorch 1.6, is mapped and not read: tensors are the file's own memory.

    Raises: PickleError: the file is harmful, or in no format of ``torch.save``, or its tensors claim more than it has.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _check_archive(path)
    elif _is_tar(path):
        raise PickleError("it is in the format of PyTorch before 0.2; save it again as .safetensors")
    reader = SimpleNamespace(__name__="pickles", Unpickler=_Unpickler, load=_load)
    try:
        return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False, mmap=is_zip)
    except PickleError:
        raise
    except Exception as error:  # PyTorch raises what it likes about a broken file
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
    """An object of a class that is not loaded: it takes whatever a pickle does with it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Return an object, whatever it is made of."""
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
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
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


class _Unpickler(pickle._Unpickler):  # in Python: each step that could run something can be seen to
    """Makes nothing but containers, plain values, tensors and inert objects."""

    dispatch: ClassVar[Any] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Any

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        is_builtin = module in ("builtins", "__builtin__")
        if root in _HARMFUL_MODULES or (is_builtin and name in _HARMFUL_BUILTINS):
            raise HarmfulPickle(f"{module}.{name}"[:200])
        if (known := _KNOWN.get((module, name))) is not None:
            return known
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        return type(name[:100] or "nameless", (Inert,), {"__module__": module[:100]})

    def get_extension(self, code: int) -> None:
        raise PickleError("it needs an extension of pickle")

    def _call(self, function: Any, arguments: Any) -> Any:
        """Call what is ours, and nothing else that came to lie on the stack."""
        if isinstance(function, type) and issubclass(function, Inert):
            return function()
        if any(function is known for known in _CALLABLE):
            return function(*arguments)
        return Inert()

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
        # Of all that has attributes, these alone are of use.
        if isinstance(built, _Parameters) and isinstance(state, dict) and isinstance(state.get("_parameters"), dict):
            built.update(state["_parameters"])

    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _load_newobj_ex
    dispatch[pickle.BUILD[0]] = _load_build


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()
