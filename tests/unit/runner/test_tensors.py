"""Values and Triton's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triton_diffusers.api.contract import CONTRACTS, INPUT_BY_NAME, JOBS_INPUTS, Output
from triton_diffusers.api.decode import read_values
from triton_diffusers.runner.tensors import input_tensors, output_values

VALUES: dict[str, Any] = {
    "task_id": "a",
    "prompt": "图",
    "steps": 20,
    "cfg_scale": 5.5,
    "use_base64": True,
    "image": b"\xff\0",
    "lora_path": ["a", "b"],
    "lora_attn": (0.55, -1.0),
    "expand": [1, 2, 3, 4],
}


def test_a_model_reads_the_values_that_were_sent() -> None:
    fields = CONTRACTS["sd_controlnet"].inputs
    arrays = {tensor.name(): arrayed(tensor) for tensor in input_tensors(VALUES, fields, batched=True)}
    expected = {field.name: VALUES.get(field.name, field.default) for field in fields}
    expected = {name: tuple(value) if isinstance(value, list) else value for name, value in expected.items()}
    assert read_values(arrays, fields) == expected
    assert arrays["expand"].shape == (1, 4)
    assert arrays["control_scale"].shape == (1, 0)


def test_tensors_of_jobs_have_no_batch_dimension() -> None:
    shapes = {tensor.name(): tensor.shape() for tensor in input_tensors({}, JOBS_INPUTS, batched=False)}
    assert shapes == {"action": [1], "task_id": [1], "preview": [1]}


def arrayed(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's array as Triton's Python backend hands it over."""
    from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

    raw = tensor._get_content() or b""
    if tensor.datatype() == "BYTES":
        return np.asarray(deserialize_bytes_tensor(raw)).reshape(tensor.shape())
    return np.frombuffer(raw, triton_to_np_dtype(tensor.datatype())).reshape(tensor.shape())


class Result:
    """A reply of Triton."""

    def __init__(self, **arrays: np.ndarray[Any, Any]) -> None:
        self._arrays = arrays

    def as_numpy(self, name: str) -> np.ndarray[Any, Any]:
        return self._arrays[name]


@pytest.mark.parametrize(
    ("output", "array", "value"),
    [
        (Output("a", "STRING", ""), np.array([["图".encode()]], object), "图"),
        (Output("a", "BYTES", "", many=True), np.array([[b"\xff", b""]], object), [b"\xff", b""]),
        (Output("a", "FP32", ""), np.array([[0.55]], np.float32), 0.55),
        (Output("a", "BOOL", "", many=True), np.array([[True, False]]), [True, False]),
        (Output("a", "INT64", ""), np.array([7]), 7),
        (Output("a", "STRING", "", many=True), np.zeros((1, 0), object), []),
    ],
)
def test_outputs_become_values(output: Output, array: np.ndarray[Any, Any], value: Any) -> None:
    assert output_values(Result(a=array), [output]) == {"a": value}


def test_every_input_has_a_tensor() -> None:
    names = {tensor.name() for tensor in input_tensors({}, tuple(INPUT_BY_NAME.values()), batched=True)}
    assert names == set(INPUT_BY_NAME)
