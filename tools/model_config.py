"""The ``config.pbtxt`` of every model, made from the contract: ``python -m tools.model_config`` writes them.

The files are committed, so that a model repository works without this step; a test compares them with the contract.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triton_diffusers.api.contract import (
    CONTRACTS,
    ENGINE_PARAMETER,
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
# Rows of one execute(): requests that Triton passes on together. (A request has one row.)
_MAX_REQUESTS = 256
# Requests for people to try. The image is a small white PNG: an empty drawing for the model's own ControlNet.
_EXAMPLE = {"task_id": "example", "prompt": "a red apple"}
_CONTROL_EXAMPLE = {
    **_EXAMPLE,
    "controlnet_path": ["controlnet"],
    "image_base64": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADUlEQVR42mP4z8SADAEPcQEOdvOI0AAAAABJRU5ErkJggg==",
}
_GENERATING_PROBE = {"task_id": PROBE, "prompt": PROBE, "func_name": PROBE}
_PROBES: Mapping[str, Mapping[str, str]] = {
    "sd_base": _GENERATING_PROBE,
    "sd_controlnet": _GENERATING_PROBE,
    "translator": {"prompt": PROBE},
    "jobs": {"action": "list"},
}


def configs() -> Mapping[str, str]:
    """Return the text of ``config.pbtxt`` by model name."""
    made = {
        "sd_base": _generating("sd_base"),
        "sd_controlnet": _generating("sd_controlnet"),
        "translator": _batched("translator"),
        "jobs": _python("jobs", max_batch_size=0),
        "ensemble": _ensemble("ensemble", "sd_base", _EXAMPLE),
        "ensemble_controlnet": _ensemble("ensemble_controlnet", "sd_controlnet", _CONTROL_EXAMPLE),
    }
    return {name: _HEADER + text_format.MessageToString(config) for name, config in made.items()}


def write(repository: Path = REPOSITORY) -> None:
    """Write every file."""
    for model, text in configs().items():
        (repository / model / "config.pbtxt").write_text(text)


def _python(model: str, max_batch_size: int = _MAX_REQUESTS) -> Any:
    """Return the configuration of a Python model, one process on the CPU."""
    config = model_config_pb2.ModelConfig(backend="python", max_batch_size=max_batch_size)
    _declare(config, CONTRACTS[model])
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
    _set_parameter(config, PROBE_PARAMETER, _PROBES[model])
    return config


def _batched(model: str) -> Any:
    """Return the configuration of a Python model that gets the requests that have come meanwhile together."""
    config = _python(model)
    config.dynamic_batching.SetInParent()
    return config


def _generating(model: str) -> Any:
    """Return the configuration of a model whose requests an engine process runs."""
    config = _batched(model)
    config.parameters[ENGINE_PARAMETER].string_value = "shared"
    return config


def _ensemble(name: str, model: str, example: Mapping[str, object]) -> Any:
    """Return the configuration of the translator followed by ``model``, which gets the translator's outputs."""
    config = model_config_pb2.ModelConfig(platform="ensemble", max_batch_size=_MAX_REQUESTS)
    own, inner = CONTRACTS[name], CONTRACTS[model]
    _declare(config, own)
    translations = {**{field: f"translated_{field}" for field in TRANSLATED}, "warnings": TRANSLATOR_WARNINGS.name}
    _add_step(
        config,
        "translator",
        {field.name: field.name for field in TRANSLATOR_INPUTS},
        {output.name: translations[output.name] for output in TRANSLATOR_OUTPUTS},
    )
    _add_step(
        config,
        model,
        # The translator alone reads use_translate.
        {f.name: translations.get(f.name, f.name) for f in inner.inputs if f.name != "use_translate"},
        {output.name: seen.name for output, seen in zip(inner.outputs, own.outputs, strict=True)},
    )
    _set_parameter(config, EXAMPLE_PARAMETER, example)
    return config


def _declare(config: Any, contract: Contract) -> None:
    for field in contract.inputs:
        config.input.add(name=field.name, data_type=_type(field), dims=[_dimension(field)], optional=not field.required)
    for output in contract.outputs:
        config.output.add(name=output.name, data_type=_type(output), dims=[_dimension(output)])


def _type(field: Input | Output) -> int:
    name = "STRING" if field.datatype == "BYTES" else field.datatype
    return int(model_config_pb2.DataType.Value(f"TYPE_{name}"))


def _dimension(field: Input | Output) -> int:
    return -1 if field.many else 1


def _add_step(config: Any, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)


def _set_parameter(config: Any, key: str, value: Mapping[str, object]) -> None:
    config.parameters[key].string_value = json.dumps(value)


if __name__ == "__main__":
    write()
