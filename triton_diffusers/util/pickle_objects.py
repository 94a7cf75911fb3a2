"""Objects that reading a pickle may make: tensors, containers, and inert ones in place of all others."""

from __future__ import annotations

from typing import Any

import torch

_MAX_DIMENSIONS = 64  # PyTorch's own limit


class PickleError(ValueError):
    """A file cannot be read; the message says why."""


class HarmfulPickle(PickleError):
    """A file names code that it wants to run."""


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


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """Return a view of a storage that does not claim more than the storage has."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise PickleError("a tensor has no storage")
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride)):
        raise PickleError("a tensor has an impossible shape")
    if len(size) > _MAX_DIMENSIONS or not all(map(is_number, (offset, *size, *stride))):
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


def is_number(value: Any) -> bool:
    """Return True if a value is a length or an offset."""
    return type(value) is int and 0 <= value < 2**63


class Parameters(dict[Any, Any]):
    """PyTorch's ``ParameterDict``, which early textual inversions were saved as."""


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def ordered(items: Any = ()) -> dict[Any, Any]:
    """Return an ``OrderedDict`` as a plain one."""
    return dict(items)


def _listed(items: Any = (), *_: Any) -> list[Any]:
    return list(items)


def _sized(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _no_default(*_: Any) -> dict[Any, Any]:
    return {}


KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,  # the type alone: see ``pickles._Unpickler._call``
    ("torch.nn.modules.container", "ParameterDict"): Parameters,
    ("torch", "Size"): _sized,
    ("collections", "OrderedDict"): ordered,
    ("collections", "defaultdict"): _no_default,
    ("collections", "deque"): _listed,
}
CALLABLE = tuple(known for known in KNOWN.values() if known is not torch.UntypedStorage)
DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
