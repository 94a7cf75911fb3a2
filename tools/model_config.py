"""The ``config.pbtxt`` of every model, made from the contract: ``python -m tools.model_config`` writes them.

The files are committed, so that a model repository works without this step; a test compares them with the contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from triton_diffusers.api.contract import (
    CONTRACTS,
    EXAMPLE_PARAMETER,
    PROBE,
    PROBE_PARAMETER,
    TRANSLATED,
    TRANSLATOR_INPUTS,
    TRANSLATOR_OUTPUTS,
    TRANSLATOR_WARNINGS,
    Contract,
    Input,
    Output,
)

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

_HEADER = "# Made from triton_diffusers/api/contract.py by `make generated`; do not edit.\n"
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
# Requests for people to try. The image is a small white PNG: an empty drawing for the model's own ControlNet.
_EXAMPLE = {"task_id": "example", "prompt": "a red apple"}
_CONTROL_EXAMPLE = {
    **_EXAMPLE,
    "controlnet_path": ["controlnet"],
    "image_base64": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADUlEQVR42mP4z8SADAEPcQEOdvOI0AAAAABJRU5ErkJggg==",
}
_ONE_PROCESS = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"


def configs() -> Mapping[str, str]:
    """The text of ``config.pbtxt`` by model name."""
    return {
        "sd_base": _generating("sd_base"),
        "sd_controlnet": _generating("sd_controlnet"),
        "translator": _HEADER
        + 'backend: "python"\n'
        + f"max_batch_size: {_MOST_REQUESTS}\n"
        + _tensors(CONTRACTS["translator"])
        + "dynamic_batching { }\n"
        + _ONE_PROCESS
        + _parameter(PROBE_PARAMETER, json.dumps({"prompt": PROBE})),
        "jobs": _HEADER
        + 'backend: "python"\nmax_batch_size: 0\n'
        + _tensors(CONTRACTS["jobs"])
        + _ONE_PROCESS
        + _parameter(PROBE_PARAMETER, json.dumps({"action": "list"})),
        "ensemble": _ensemble("ensemble", "sd_base", _EXAMPLE),
        "ensemble_controlnet": _ensemble("ensemble_controlnet", "sd_controlnet", _CONTROL_EXAMPLE),
    }


def write(repository: Path = REPOSITORY) -> None:
    """Write every file."""
    for model, text in configs().items():
        (repository / model / "config.pbtxt").write_text(text)


def _generating(model: str) -> str:
    return (
        _HEADER
        + 'backend: "python"\n'
        + f"max_batch_size: {_MOST_REQUESTS}\n"
        + _tensors(CONTRACTS[model])
        + _SEQUENCES
        + _ONE_PROCESS
        + _parameter(PROBE_PARAMETER, json.dumps({"task_id": PROBE, "prompt": PROBE, "func_name": PROBE}))
    )


def _ensemble(name: str, model: str, example: Mapping[str, object]) -> str:
    return (
        _HEADER
        + 'platform: "ensemble"\n'
        + f"max_batch_size: {_MOST_REQUESTS}\n"
        + _tensors(CONTRACTS[name])
        + _translated(model, CONTRACTS[model], CONTRACTS[name])
        + _parameter(EXAMPLE_PARAMETER, json.dumps(example))
    )


def _tensors(contract: Contract) -> str:
    declared = [
        f'  {{ name: "{field.name}" data_type: {_type(field)} dims: [ {-1 if field.many else 1} ]'
        f"{'' if field.required else ' optional: true'} }}"
        for field in contract.inputs
    ]
    returned = [
        f'  {{ name: "{field.name}" data_type: {_type(field)} dims: [ {-1 if field.many else 1} ] }}'
        for field in contract.outputs
    ]
    return f"input [\n{_lines(declared)}]\noutput [\n{_lines(returned)}]\n"


def _type(field: Input | Output) -> str:
    return "TYPE_STRING" if field.datatype == "BYTES" else f"TYPE_{field.datatype}"


def _lines(entries: Iterable[str]) -> str:
    return ",\n".join(entries) + "\n"


def _translated(model: str, its: Contract, ensembles: Contract) -> str:
    """The translator, then ``model``, which gets the translator's outputs and all else as it was sent."""
    translations = {
        **{name: f"translated_{name}" for name in TRANSLATED},
        "warnings": TRANSLATOR_WARNINGS.name,
    }
    translate = _step(
        "translator",
        {field.name: field.name for field in TRANSLATOR_INPUTS},
        {output.name: translations[output.name] for output in TRANSLATOR_OUTPUTS},
    )
    # Whether to translate is settled by then.
    generate = _step(
        model,
        {field.name: translations.get(field.name, field.name) for field in its.inputs if field.name != "use_translate"},
        {output.name: seen.name for output, seen in zip(its.outputs, ensembles.outputs, strict=True)},
    )
    return f"ensemble_scheduling {{\n  step [\n{translate},\n{generate}\n  ]\n}}\n"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [f'      input_map {{ key: "{name}" value: "{tensor}" }}\n' for name, tensor in inputs.items()]
    maps += [f'      output_map {{ key: "{name}" value: "{tensor}" }}\n' for name, tensor in outputs.items()]
    return f'    {{\n      model_name: "{model}"\n      model_version: -1\n{"".join(maps)}    }}'


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n'


if __name__ == "__main__":
    write()
