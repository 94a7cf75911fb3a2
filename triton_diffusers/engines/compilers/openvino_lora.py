"""LoRA in OpenVINO's operations."""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any

import numpy as np
from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension

# How the names of the operations begin: of all, and of those that add to what a layer has computed.
LORA_NAMES = "lora_"
LORA_SUMS = f"{LORA_NAMES}sum_"

# More than any number of places; on the CPU, OpenVINO computes with sizes of 32 bits.
_ALL = 2**30

_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def lora_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``add_lora``."""
    numbers = count()
    sizes: dict[str, _Sizes] = {}

    def convert(context: Any) -> Any:
        packed = context.get_input(4)
        name = packed.get_node().get_friendly_name()
        if name not in sizes:
            sizes[name] = _Sizes(packed)
        return _add_lora(context, sizes[name], next(numbers))

    return ConversionExtension("triton_diffusers.add_lora.default", convert)


class _Sizes:
    """What depends on the sizes of a graph's LoRA alone: computed once in each call, and not for each of its layers.

    Without LoRA (rank 0) all layers compute one place only, of zeros, which is added to all: nothing is written, copied
    or put in order for it.
    """

    def __init__(self, packed: Any) -> None:
        shape = ops.shape_of(packed)
        groups, rank = (ops.gather(shape, _ints(axis), _ints(0)) for axis in (0, 1))
        self.places = ops.maximum(ops.multiply(ops.minimum(rank, _ints(1)), _ints(_ALL)), _ints(1))
        """1 without LoRA, else more than there are."""
        self.sides = ops.concat([self.places, self.places], 0)
        self.grouped = cache(lambda size: ops.concat([groups, _ints(-1, size)], 0))
        """The shape (groups, places, size)."""
        self.most = cache(lambda rank: ops.concat([*[self.places] * (rank - 1), _ints(_ALL)], 0))
        """As many places in all of so many dimensions but the last one, which stays."""


def _add_lora(context: Any, sizes: _Sizes, number: int) -> Any:
    output, inputs, down, up = (context.get_input(index) for index in range(4))
    shape, rank = ops.shape_of(output), output.get_partial_shape().rank.get_length()
    pixels = rank == 4
    if pixels:
        shape = ops.gather(shape, _ints(*_CHANNELS_LAST), _ints(0))
        inputs = ops.slice(inputs, _ints(0, 0), sizes.sides, _ints(1, 1), _ints(2, 3))
        inputs = ops.transpose(inputs, _ints(*_CHANNELS_LAST))
    grouped = ops.reshape(inputs, sizes.grouped(down.get_partial_shape()[2].get_length()), False)
    hidden = ops.matmul(grouped, down, False, True)
    added = ops.matmul(ops.slice(hidden, _ints(0), sizes.places, _ints(1), _ints(1)), up, False, True)
    placed = ops.reshape(added, ops.minimum(shape, sizes.most(rank)), False)
    if pixels:
        placed = ops.transpose(placed, _ints(*_CHANNELS_FIRST))
    summed = ops.add(output, placed)
    hidden.set_friendly_name(f"{LORA_NAMES}down_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    summed.set_friendly_name(f"{LORA_SUMS}{number}")
    return [summed.output(0)]


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))
