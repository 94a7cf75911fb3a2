"""The systems under test: how each is asked, and how its pictures come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from benchmarks.workload import GUIDANCE_SCALE, Ask
from triton_diffusers.api.contract import INPUTS

_NUMPY_TYPES: Mapping[str, tuple[str, Any]] = {
    "STRING": ("BYTES", np.object_),
    "BYTES": ("BYTES", np.object_),
    "INT64": ("INT64", np.int64),
    "FP32": ("FP32", np.float32),
    "BOOL": ("BOOL", np.bool_),
}


class System(Protocol):
    """A served model."""

    @property
    def label(self) -> str:
        """Name in figures."""

    @property
    def model(self) -> str:
        """Its name in the model repository."""

    def inputs(self, client: ModuleType, ask: Ask) -> list[Any]:
        """Return the input tensors of a request, for ``tritonclient.grpc`` or ``tritonclient.http``."""


class TritonDiffusers:
    """Our ``sd_base``, asked as the SDK asks it: with every input, so that Triton keeps the requests together."""

    label = "Triton Diffusers"
    model = "sd_base"

    def inputs(self, client: ModuleType, ask: Ask) -> list[Any]:
        """See ``System``."""
        values = {field.name: field.default for field in INPUTS} | {
            "task_id": f"bench-{ask.seed}",
            "prompt": ask.prompt,
            "steps": ask.steps,
            "cfg_scale": GUIDANCE_SCALE,
            "width": ask.side,
            "height": ask.side,
            "seed": str(ask.seed),
            "image_num": ask.images,
            "scheduler": "DPM++ 2M",
            "return_images": True,
        }
        return [tensor(client, field.name, field.datatype, values[field.name]) for field in INPUTS]


class DiffusersPipeline:
    """The peer of ``benchmarks/peers``: diffusers' pipeline in a plain Python model."""

    label = "Pipeline in a Python model"
    model = "diffusers_pipeline"

    def inputs(self, client: ModuleType, ask: Ask) -> list[Any]:
        """See ``System``."""
        return [
            tensor(client, "prompt", "STRING", ask.prompt),
            tensor(client, "negative_prompt", "STRING", ""),
            tensor(client, "steps", "INT64", ask.steps),
            tensor(client, "guidance_scale", "FP32", GUIDANCE_SCALE),
            tensor(client, "width", "INT64", ask.side),
            tensor(client, "height", "INT64", ask.side),
            tensor(client, "seed", "INT64", ask.seed),
            tensor(client, "image_num", "INT64", ask.images),
        ]


def tensor(client: ModuleType, name: str, datatype: str, value: object) -> Any:
    """Return an input tensor of shape (1, n); n is 1, or the length of a list."""
    triton_type, numpy_type = _NUMPY_TYPES[datatype]
    elements = value if isinstance(value, tuple) else (value,)
    if datatype == "STRING":
        elements = tuple(str(element).encode() for element in elements)
    array = np.array([elements], dtype=numpy_type)
    made = client.InferInput(name, list(array.shape), triton_type)
    made.set_data_from_numpy(array)
    return made


def pictures(result: Any) -> Sequence[bytes]:
    """Return the encoded pictures of a reply of either system."""
    return list(result.as_numpy("images").flat)
