"""LoRA in OpenVINO's operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def lora_extensions() -> Sequence[ConversionExtension]:
    """Return how OpenVINO is to convert ``add_lora`` and ``add_convolution_lora``."""
    numbers = count()
    sizes: dict[str, _Sizes] = {}

    def extension(name: str, add: Callable[[Any, _Sizes, int], Any]) -> ConversionExtension:
        def convert(context: Any) -> Any:
            packed = context.get_input(4)
            key = packed.get_node().get_friendly_name()
            if key not in sizes:
                sizes[key] = _Sizes(packed, context.get_input(0))
            return add(context, sizes[key], next(numbers))

        return ConversionExtension(f"triton_diffusers.{name}.default", convert)

    return extension("add_lora", _add_lora), extension("add_convolution_lora", _add_convolution_lora)


class _Sizes:
    """What depends on the sizes of a graph's LoRA alone: computed once in each call, and not for each of its layers.

    Without LoRA (rank 0) all layers compute one place only, of zeros, which is added to all: nothing is written, copied
    or put in order for it. ``rowed`` has the call's rows as its first dimension.
    """

    def __init__(self, packed: Any, rowed: Any) -> None:
        shape = ops.shape_of(packed)
        self.groups, self.rank = (ops.gather(shape, _ints(axis), _ints(0)) for axis in (0, 1))
        self.places = ops.maximum(ops.multiply(ops.minimum(self.rank, _ints(1)), _ints(_ALL)), _ints(1))
        """1 without LoRA, else more than there are."""
        self.sides = ops.concat([self.places, self.places], 0)
        """As many places in both directions."""
        self.sides_of = cache(lambda least: ops.maximum(self.sides, _ints(*least)) if max(least) > 1 else self.sides)
        """The same, but at least these."""
        self.grouped = cache(lambda size: ops.concat([self.groups, _ints(-1, size)], 0))
        """The shape (groups, places, size)."""
        self.most = cache(lambda rank: ops.concat([*[self.places] * (rank - 1), _ints(_ALL)], 0))
        """As many places in all of so many dimensions but the last one, which stays."""
        self.most_pixels = ops.concat([_ints(_ALL), self.places, self.places, _ints(_ALL)], 0)
        """As many places of each row and channel."""
        rows = ops.gather(ops.shape_of(rowed), _ints(0), _ints(0))
        self.rows = ops.concat([self.groups, ops.divide(rows, self.groups)], 0)
        """The shape (groups, rows of a group)."""
        self.ranked = ops.concat([self.rows, self.rank], 0)
        """The shape (groups, rows of a group, rank)."""
        self.all_ranks = ops.multiply(rows, self.rank)
        """Ranks of all rows together."""
        self.kernels = cache(self._kernels)
        """The shape (groups, 1, rank · taps, in) of kernels of so many taps and inputs."""

    def _kernels(self, size: tuple[int, int]) -> Any:
        taps, width = size
        return ops.concat([self.groups, _ints(1), ops.multiply(self.rank, _ints(taps)), _ints(width)], 0)


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
    hidden.set_friendly_name(f"{LORA_NAMES}down_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    return _summed(output, placed, number)


def _add_convolution_lora(context: Any, sizes: _Sizes, number: int) -> Any:
    """Compute the products of all taps at each place, and then put each tap's where it belongs.

    The kernel of a request is not known, and OpenVINO convolves with known ones alone. The second step is a convolution
    with a kernel of ones and zeros, of as many images as there are rows and ranks.
    """
    output, inputs, down, up = (context.get_input(index) for index in range(4))
    kernel, stride, padding, dilation = (context.get_values_from_const_input(index) for index in range(5, 9))
    taps, width = math.prod(kernel), inputs.get_partial_shape()[1].get_length()
    # A kernel without padding needs some places to give one.
    shapes = zip(kernel, dilation, padding, strict=True)
    least = tuple(max(1, 1 + step * (side - 1) - 2 * pad) for side, step, pad in shapes)
    seen = ops.slice(inputs, _ints(0, 0), sizes.sides_of(least), _ints(1, 1), _ints(2, 3))
    sides = ops.gather(ops.shape_of(seen), _ints(2, 3), _ints(0))
    pixels = ops.concat([sizes.rows, _ints(width), _product(sides)], 0)
    placed = ops.minimum(ops.gather(ops.shape_of(output), _ints(*_CHANNELS_LAST), _ints(0)), sizes.most_pixels)

    kernels = ops.reshape(down, sizes.kernels((taps, width)), False)
    products = ops.matmul(kernels, ops.reshape(seen, pixels, False), False, False)
    images = ops.concat([sizes.all_ranks, _ints(taps), sides], 0)
    folded = ops.convolution(
        ops.reshape(products, images, False), _one_for_each_tap(kernel), stride, padding, padding, dilation
    )
    places = _product(ops.gather(placed, _ints(1, 2), _ints(0)))
    hidden = ops.reshape(folded, ops.concat([sizes.ranked, places], 0), False)
    # Channels last, as the layer's own output is in memory: it would be put into another order for the sum.
    added = ops.matmul(hidden, ops.unsqueeze(up, _ints(1)), True, True)
    products.set_friendly_name(f"{LORA_NAMES}down_{number}")
    folded.set_friendly_name(f"{LORA_NAMES}fold_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    return _summed(output, ops.transpose(ops.reshape(added, placed, False), _ints(*_CHANNELS_FIRST)), number)


def _product(sizes: Any) -> Any:
    return ops.reduce_prod(sizes, _ints(0), True)


def _one_for_each_tap(kernel: Sequence[int]) -> Any:
    taps = math.prod(kernel)
    return ops.constant(np.eye(taps, dtype=np.float32).reshape(1, taps, *kernel))


def _summed(output: Any, placed: Any, number: int) -> Any:
    summed = ops.add(output, placed)
    summed.set_friendly_name(f"{LORA_SUMS}{number}")
    return [summed.output(0)]


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))
