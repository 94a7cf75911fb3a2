"""The ``config.pbtxt`` of every model, made from the contract: ``python -m triton_diffusers.model_config`` writes them.

The files are committed, so that a model repository works without this step; a test compares them with the contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from triton_diffusers.contract import ENSEMBLE_OUTPUTS, INPUTS, JOBS_INPUTS, JOBS_OUTPUTS, OUTPUTS, PROBE, Input, Output

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

_HEADER = "# Made from triton_diffusers/contract.py by `make generated`; do not edit.\n"
# Rows of one execute(): requests in flight that Triton hands to the mailbox together. (A request has one row.)
_MOST_REQUESTS = 256
# Places for requests in flight, well above what the engine's own queue admits: Triton (2.51) loses the place of a gRPC
# call that its client cancels at the wrong moment, and has it back only when it has been idle for so long.
_MOST_SEQUENCES = 1024
_IDLE_MICROSECONDS = 30_000_000
_SEQUENCES = f"""sequence_batching {{
  iterative_sequence: true
  max_sequence_idle_microseconds: {_IDLE_MICROSECONDS}
  control_input [
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }}
  ]
  oldest {{ max_candidate_sequences: {_MOST_SEQUENCES} }}
}}
"""
_ONE_PROCESS = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"


def configs() -> Mapping[str, str]:
    """The text of ``config.pbtxt`` by model name."""
    return {
        "sd_base": _HEADER
        + 'backend: "python"\n'
        + f"max_batch_size: {_MOST_REQUESTS}\n"
        + _tensors(INPUTS, OUTPUTS)
        + _SEQUENCES
        + _ONE_PROCESS
        + _parameter("probe", json.dumps({"task_id": PROBE, "prompt": PROBE, "func_name": PROBE})),
        "jobs": _HEADER
        + 'backend: "python"\nmax_batch_size: 0\n'
        + _tensors(JOBS_INPUTS, JOBS_OUTPUTS)
        + _ONE_PROCESS
        + _parameter("probe", json.dumps({"action": "list"})),
        "ensemble": _HEADER
        + 'platform: "ensemble"\n'
        + f"max_batch_size: {_MOST_REQUESTS}\n"
        + _tensors(INPUTS, ENSEMBLE_OUTPUTS)
        + _pass_through("sd_base"),
    }


def write(repository: Path = REPOSITORY) -> None:
    """Write every file."""
    for model, text in configs().items():
        (repository / model / "config.pbtxt").write_text(text)


def _tensors(inputs: Sequence[Input], outputs: Sequence[Output]) -> str:
    declared = [
        f'  {{ name: "{field.name}" data_type: {_type(field)} dims: [ {-1 if field.many else 1} ]'
        f"{'' if field.required else ' optional: true'} }}"
        for field in inputs
    ]
    returned = [
        f'  {{ name: "{field.name}" data_type: {_type(field)} dims: [ {-1 if field.many else 1} ] }}'
        for field in outputs
    ]
    return f"input [\n{_lines(declared)}]\noutput [\n{_lines(returned)}]\n"


def _type(field: Input | Output) -> str:
    return "TYPE_STRING" if field.datatype == "BYTES" else f"TYPE_{field.datatype}"


def _lines(entries: Iterable[str]) -> str:
    return ",\n".join(entries) + "\n"


def _pass_through(model: str) -> str:
    inputs = "".join(f'      input_map {{ key: "{field.name}" value: "{field.name}" }}\n' for field in INPUTS)
    outputs = "".join(
        f'      output_map {{ key: "{output.name}" value: "{seen.name}" }}\n'
        for output, seen in zip(OUTPUTS, ENSEMBLE_OUTPUTS, strict=True)
    )
    return (
        "ensemble_scheduling {\n  step [\n    {\n"
        f'      model_name: "{model}"\n      model_version: -1\n{inputs}{outputs}'
        "    }\n  ]\n}\n"
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n'


if __name__ == "__main__":
    write()
