"""LoRA in OpenVINO's operations."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension

LORA_NAMES = "lora_"  # how the names of the operations begin

# More than any number of places; on the CPU, OpenVINO computes with sizes of 32 bits.
_ALL = 2**30


def lora_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``add_lora``."""
    numbers = count()
    return ConversionExtension("triton_diffusers.add_lora.default", lambda context: _add_lora(context, next(numbers)))


def _add_lora(context: Any, number: int) -> Any:
    output, inputs, down, up = (context.get_input(index) for index in range(4))
    size_in = _int(down.get_partial_shape()[2].get_length())
    size_out = _int(up.get_partial_shape()[1].get_length())
    shape = ops.shape_of(down)
    groups, rank = (ops.gather(shape, _int(axis), _int(0)) for axis in (0, 1))
    grouped = ops.reshape(inputs, ops.concat([groups, _int(-1), size_in], 0), False)
    hidden = ops.matmul(grouped, down, False, True)
    # Without LoRA (rank 0) one place is made, of zeros, which is added to all: less to write and to read.
    places = ops.maximum(ops.multiply(ops.minimum(rank, _int(1)), _int(_ALL)), _int(1))
    added = ops.matmul(ops.slice(hidden, _int(0), places, _int(1), _int(1)), up, False, True)
    summed = ops.add(ops.reshape(output, ops.concat([groups, _int(-1), size_out], 0), False), added)
    hidden.set_friendly_name(f"{LORA_NAMES}down_{number}")
    added.set_friendly_name(f"{LORA_NAMES}up_{number}")
    summed.set_friendly_name(f"{LORA_NAMES}sum_{number}")
    return [ops.reshape(summed, ops.shape_of(output), False).output(0)]


def _int(value: int) -> Any:
    return ops.constant(np.array([value], np.int64))
