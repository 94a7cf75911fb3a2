"""Three tiny models for servers of a test's own."""

from __future__ import annotations

from pathlib import Path

# Waits for the longest "seconds" of a batch, and prints it.
STEPS_CONFIG = """
backend: "python"
max_batch_size: 8
input [
  { name: "seconds" data_type: TYPE_FP32 dims: [1] optional: true },
  { name: "func_name" data_type: TYPE_STRING dims: [1] optional: true }
]
output [ { name: "pid" data_type: TYPE_INT32 dims: [1] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
parameters { key: "probe" value { string_value: "{\\"func_name\\": \\"probe\\"}" } }
"""
STEPS_MODEL = """
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "seconds") for request in requests]
        seconds = max(0.0 if seconds is None else seconds.as_numpy().item() for seconds in given)
        if seconds:
            print(f"steps takes {seconds:g} s", flush=True)
        time.sleep(seconds)
        pid = pb_utils.Tensor("pid", np.array([[os.getpid()]], np.int32))
        return [pb_utils.InferenceResponse([pid]) for _ in requests]
"""
CHAIN_CONFIG = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "seconds" data_type: TYPE_FP32 dims: [1] optional: true } ]
output [ { name: "pid" data_type: TYPE_INT32 dims: [1] } ]
ensemble_scheduling { step [ {
  model_name: "steps"
  model_version: -1
  input_map { key: "seconds" value: "seconds" }
  output_map { key: "pid" value: "pid" }
} ] }
parameters { key: "example" value { string_value: "{\\"seconds\\": 0}" } }
"""
# Answers with what it sees of its surroundings; "sleep" hangs it; cannot be loaded while a file called "broken" is
# beside its version folder. "list" and "nothing" have any length, as lists of the real models do.
MIRROR_CONFIG = """
backend: "python"
max_batch_size: 0
input [
  { name: "sleep" data_type: TYPE_FP32 dims: [1] },
  { name: "list" data_type: TYPE_FP32 dims: [-1] optional: true }
]
output [
  { name: "seen" data_type: TYPE_STRING dims: [1] },
  { name: "nothing" data_type: TYPE_FP32 dims: [-1] }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "probe" value { string_value: "{\\"sleep\\": 0}" } }
"""
MIRROR_MODEL = """
import json, os, pathlib, sys, time
import numpy as np
import triton_python_backend_utils as pb_utils
import triton_diffusers.cli.main

class TritonPythonModel:
    def initialize(self, args):
        if (pathlib.Path(args["model_repository"]) / "broken").exists():
            raise RuntimeError("told to be broken")

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        seconds = pb_utils.get_input_tensor_by_name(request, "sleep").as_numpy().item()
        if seconds:
            print(f"mirror takes {seconds:g} s", flush=True)
        time.sleep(seconds)
        seen = json.dumps({
            "pid": os.getpid(),
            "prefix": sys.prefix,
            "package": triton_diffusers.cli.main.__file__,
            "variables": {key: value for key, value in os.environ.items() if key.startswith("TRITON_DIFFUSERS_")},
        })
        nothing = pb_utils.Tensor("nothing", np.zeros(0, np.float32))
        return pb_utils.InferenceResponse([pb_utils.Tensor("seen", np.array([seen], object)), nothing])
"""


def write_models(root: Path) -> None:
    """Make ``root`` a repository of ``steps``, ``chain`` (an ensemble that calls it) and ``mirror``."""
    for name, config, model in (
        ("steps", STEPS_CONFIG, STEPS_MODEL),
        ("chain", CHAIN_CONFIG, None),
        ("mirror", MIRROR_CONFIG, MIRROR_MODEL),
    ):
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(config)
        if model:
            (root / name / "1" / "model.py").write_text(model)
