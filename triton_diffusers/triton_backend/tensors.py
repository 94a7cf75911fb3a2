"""Tensors to and from numpy and Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triton_diffusers.api.contract import Output

_NUMPY_TYPES: Mapping[str, Any] = {
    "STRING": np.object_,
    "BYTES": np.object_,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}


def input_arrays(request: pb_utils.InferenceRequest) -> dict[str, np.ndarray[Any, Any]]:
    """Return all inputs of a request, by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def output_tensors(
    values: Mapping[str, Any], outputs: Sequence[Output], wanted: Sequence[str], *, batched: bool
) -> list[pb_utils.Tensor]:
    """Return tensors for the ``wanted`` ones of ``outputs``; values of a ``many`` output are lists.

    Shape (n,), or (1, n) for a model with a batch dimension.
    """
    tensors = []
    for output in outputs:
        if output.name in wanted:
            array = _array(values[output.name], output)
            tensors.append(pb_utils.Tensor(output.name, array[None] if batched else array))
    return tensors


def _array(value: Any, output: Output) -> np.ndarray[Any, Any]:
    elements = list(value) if output.many else [value]
    if output.datatype == "STRING":
        elements = [element.encode() if isinstance(element, str) else element for element in elements]
    return np.array(elements, dtype=_NUMPY_TYPES[output.datatype])
