"""Descriptions of input and output tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DataType = Literal["STRING", "BYTES", "INT64", "FP32", "BOOL"]
Value = str | bytes | int | float | bool
Default = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class InputField:
    """An input tensor; a list's default is a tuple, and absent is the empty list.

    ``default_help`` explains a default that stands for something else. The values lie between ``minimum`` and
    ``maximum``, or are among ``choices``; the server's settings may bound them further.
    """

    name: str
    datatype: DataType
    default: Default
    default_help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        """True if the field is a list."""
        return isinstance(self.default, tuple)


@dataclass(frozen=True, slots=True)
class OutputField:
    """An output tensor; ``many``: a list."""

    name: str
    datatype: DataType
    many: bool = False
