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

from triton_diffusers.engines.compilers.openvino.extensions import ints

# Name prefixes: of all operations, and of the sums with a layer's output.
LORA_NAMES = "lora_"
LORA_SUMS = f"{LORA_NAMES}sum_"

# Larger than any size; on the CPU, OpenVINO computes sizes in 32 bits.
_ALL = 2**30

_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def lora_extensions() -> Sequence[ConversionExtension]:
    """Return the conversions of ``add_lora`` and ``add_convolution_lora``."""
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
    """Values that depend only on a graph's LoRA sizes, computed once per call instead of once per layer.

    Without LoRA (rank 0), all layers compute a single position of zeros, which broadcasts, so that nothing large is
    written, copied or reordered. ``rowed`` has the call's rows as its first dimension.
    """

    def __init__(self, packed: Any, rowed: Any) -> None:
        shape = ops.shape_of(packed)
        self.groups, self.rank = (ops.gather(shape, ints(axis), ints(0)) for axis in (0, 1))
        self.places = ops.maximum(ops.multiply(ops.minimum(self.rank, ints(1)), ints(_ALL)), ints(1))
        """Limit of positions: 1 without LoRA, else unlimited."""
        self.sides = ops.concat([self.places, self.places], 0)
        """``places`` for both directions."""
        self.sides_of = cache(lambda lower: ops.maximum(self.sides, ints(*lower)) if max(lower) > 1 else self.sides)
        """``sides`` with lower limits."""
        self.grouped = cache(lambda size: ops.concat([self.groups, ints(-1, size)], 0))
        """The shape (groups, places, size)."""
        self.limits = cache(lambda rank: ops.concat([*[self.places] * (rank - 1), ints(_ALL)], 0))
        """``places`` for all dimensions of a rank except the last one, which is unlimited."""
        self.pixel_limits = ops.concat([ints(_ALL), self.places, self.places, ints(_ALL)], 0)
        """``places`` for both sides of (rows, h, w, channels)."""
        rows = ops.gather(ops.shape_of(rowed), ints(0), ints(0))
        self.rows = ops.concat([self.groups, ops.divide(rows, self.groups)], 0)
        """The shape (groups, rows of a group)."""
        self.ranked = ops.concat([self.rows, self.rank], 0)
        """The shape (groups, rows of a group, rank)."""
        self.all_ranks = ops.multiply(rows, self.rank)
        """Sum of the ranks of all rows."""
        self.kernels = cache(self._kernels)
        """The shape (groups, 1, rank · taps, in) of kernels by (taps, inputs)."""

    def _kernels(self, size: tuple[int, int]) -> Any:
        taps, width = size
        return ops.concat([self.groups, ints(1), ops.multiply(self.rank, ints(taps)), ints(width)], 0)


def _add_lora(context: Any, sizes: _Sizes, number: int) -> Any:
    output, inputs, down, up = (context.get_input(index) for index in range(4))
    shape, rank = ops.shape_of(output), output.get_partial_shape().rank.get_length()
    pixels = rank == 4
    if pixels:
        shape = ops.gather(shape, ints(*_CHANNELS_LAST), ints(0))
        inputs = ops.slice(inputs, ints(0, 0), sizes.sides, ints(1, 1), ints(2, 3))
        inputs = ops.transpose(inputs, ints(*_CHANNELS_LAST))
    grouped = ops.reshape(inputs, sizes.grouped(down.get_partial_shape()[2].get_length()), False)
    hidden = ops.matmul(grouped, down, False, True)
    added = ops.matmul(ops.slice(hidden, ints(0), sizes.places, ints(1), ints(1)), up, False, True)
    placed = ops.reshape(added, ops.minimum(shape, sizes.limits(rank)), False)
    if pixels:
        placed = ops.transpose(placed, ints(*_CHANNELS_FIRST))
    hidden.set_friendly_name(f"{LORA_NAMES}down_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    return _summed(output, placed, number)


def _add_convolution_lora(context: Any, sizes: _Sizes, number: int) -> Any:
    """Compute the products of all taps at each position, then move each tap's to its place.

    OpenVINO convolves only with constant kernels, and a request's is not. So the second step is a convolution with a
    constant kernel of ones and zeros, with one image per row and rank.
    """
    output, inputs, down, up = (context.get_input(index) for index in range(4))
    kernel, stride, padding, dilation = (context.get_values_from_const_input(index) for index in range(5, 9))
    taps, width = math.prod(kernel), inputs.get_partial_shape()[1].get_length()
    # Without padding, one output position needs several input positions.
    shapes = zip(kernel, dilation, padding, strict=True)
    lower = tuple(max(1, 1 + step * (side - 1) - 2 * pad) for side, step, pad in shapes)
    seen = ops.slice(inputs, ints(0, 0), sizes.sides_of(lower), ints(1, 1), ints(2, 3))
    sides = ops.gather(ops.shape_of(seen), ints(2, 3), ints(0))
    pixels = ops.concat([sizes.rows, ints(width), _product(sides)], 0)
    placed = ops.minimum(ops.gather(ops.shape_of(output), ints(*_CHANNELS_LAST), ints(0)), sizes.pixel_limits)

    kernels = ops.reshape(down, sizes.kernels((taps, width)), False)
    products = ops.matmul(kernels, ops.reshape(seen, pixels, False), False, False)
    images = ops.concat([sizes.all_ranks, ints(taps), sides], 0)
    folded = ops.convolution(
        ops.reshape(products, images, False), _one_for_each_tap(kernel), stride, padding, padding, dilation
    )
    places = _product(ops.gather(placed, ints(1, 2), ints(0)))
    hidden = ops.reshape(folded, ops.concat([sizes.ranked, places], 0), False)
    # Channels last, like the layer's output in memory, so that the sum needs no reordering.
    added = ops.matmul(hidden, ops.unsqueeze(up, ints(1)), True, True)
    products.set_friendly_name(f"{LORA_NAMES}down_{number}")
    folded.set_friendly_name(f"{LORA_NAMES}fold_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    return _summed(output, ops.transpose(ops.reshape(added, placed, False), ints(*_CHANNELS_FIRST)), number)


def _product(sizes: Any) -> Any:
    return ops.reduce_prod(sizes, ints(0), True)


def _one_for_each_tap(kernel: Sequence[int]) -> Any:
    taps = math.prod(kernel)
    return ops.constant(np.eye(taps, dtype=np.float32).reshape(1, taps, *kernel))


def _summed(output: Any, placed: Any, number: int) -> Any:
    summed = ops.add(output, placed)
    summed.set_friendly_name(f"{LORA_SUMS}{number}")
    return [summed.output(0)]
