"""Values of the contract to Triton's tensors and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import np_to_triton_dtype

from triton_diffusers.api.contract import DataType, Input, Output

_NUMPY_TYPES: Mapping[DataType, Any] = {
    "STRING": np.object_,
    "BYTES": np.object_,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}


def input_tensors(values: Mapping[str, Any], fields: Sequence[Input], *, batched: bool) -> list[triton.InferInput]:
    """Return a tensor for each of ``fields``, with the default of a field that is missing in ``values``."""
    tensors = []
    for field in fields:
        value = values.get(field.name, field.default)
        elements = [
            element.encode() if isinstance(element, str) else element
            for element in (value if isinstance(value, tuple | list) else (value,))
        ]
        array = np.empty((1, len(elements)) if batched else (len(elements),), _NUMPY_TYPES[field.datatype])
        array.reshape(-1)[:] = elements
        tensor = triton.InferInput(field.name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return tensors


def output_values(result: triton.InferResult, outputs: Sequence[Output]) -> dict[str, Any]:
    """Return the value of each of ``outputs``: text for STRING, a list for ``many``."""
    values: dict[str, Any] = {}
    for output in outputs:
        elements = [_element(output, element) for element in result.as_numpy(output.name).ravel().tolist()]
        values[output.name] = elements if output.many else elements[0]
    return values


def _element(output: Output, element: Any) -> Any:
    if output.datatype == "STRING":
        return element.decode()
    # The float32 of 0.55 is 0.55, not 0.550000011920929.
    return float(str(np.float32(element))) if output.datatype == "FP32" else element
