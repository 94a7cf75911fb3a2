"""The committed ``config.pbtxt`` files are those of the contract, and Triton can read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tools.model_config import REPOSITORY, configs, write
from triton_diffusers.api.contract import (
    CONTRACTS,
    ENGINE_PARAMETER,
    TRANSLATOR_INPUTS,
    TRANSLATOR_WARNINGS,
    Input,
    Output,
)


def type_of(field: Input | Output) -> str:
    """Triton's name of a field's type: it has one for text and bytes."""
    return {"STRING": "TYPE_STRING", "BYTES": "TYPE_STRING"}.get(field.datatype, f"TYPE_{field.datatype}")


def test_the_committed_files_are_the_generated_ones() -> None:
    committed = {path.parent.name: path.read_text() for path in REPOSITORY.glob("*/config.pbtxt")}
    assert committed == dict(configs()), "run `make generated`"


def test_writing_gives_those_files(tmp_path: Path) -> None:
    for model in configs():
        (tmp_path / model).mkdir()
    write(tmp_path)
    assert {path.parent.name: path.read_text() for path in tmp_path.glob("*/config.pbtxt")} == dict(configs())


@pytest.mark.parametrize("model", sorted(configs()))
def test_a_config_declares_the_tables(model: str) -> None:
    config = text_format.Parse(configs()[model], model_config_pb2.ModelConfig())
    contract = CONTRACTS[model]
    types = model_config_pb2.DataType
    assert [(field.name, types.Name(field.data_type), tuple(field.dims), field.optional) for field in config.input] == [
        (field.name, type_of(field), (-1,) if field.many else (1,), not field.required) for field in contract.inputs
    ]
    assert [(field.name, types.Name(field.data_type), tuple(field.dims)) for field in config.output] == [
        (field.name, type_of(field), (-1,) if field.many else (1,)) for field in contract.outputs
    ]


ENSEMBLES = [("ensemble", "sd_base"), ("ensemble_controlnet", "sd_controlnet")]


def test_every_model_with_a_contract_has_a_config() -> None:
    assert configs().keys() == CONTRACTS.keys()


@pytest.mark.parametrize(("ensemble", "model"), ENSEMBLES)
def test_no_output_of_an_ensemble_bears_an_inputs_name(ensemble: str, model: str) -> None:
    contract = CONTRACTS[ensemble]
    assert contract.inputs == tuple(field for field in CONTRACTS[model].inputs if field != TRANSLATOR_WARNINGS)
    assert not {field.name for field in contract.inputs} & {output.name for output in contract.outputs}


@pytest.mark.parametrize(("ensemble", "model"), ENSEMBLES)
def test_an_ensemble_hands_every_field_on_and_the_prompts_translated(ensemble: str, model: str) -> None:
    config = text_format.Parse(configs()[ensemble], model_config_pb2.ModelConfig())
    translate, generate = config.ensemble_scheduling.step
    assert (translate.model_name, generate.model_name) == ("translator", model)
    assert dict(translate.output_map) == {
        "prompt": "translated_prompt",
        "negative_prompt": "translated_negative_prompt",
        "warnings": "translator_warnings",
    }
    asked = {field.name for field in CONTRACTS[model].inputs}
    assert dict(translate.input_map) == {field.name: field.name for field in TRANSLATOR_INPUTS}
    assert dict(generate.input_map) == {
        name: f"translated_{name}" if name in ("prompt", "negative_prompt") else name
        for name in asked - {"use_translate"}
    }
    assert generate.output_map.keys() == {output.name for output in CONTRACTS[model].outputs}
    assert set(generate.output_map.values()) == {output.name for output in config.output}


@pytest.mark.parametrize("model", ["sd_base", "sd_controlnet"])
def test_generating_models_take_requests_without_waiting_and_need_an_engine(model: str) -> None:
    config = text_format.Parse(configs()[model], model_config_pb2.ModelConfig())
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert not config.HasField("sequence_batching")
    assert not config.model_transaction_policy.decoupled, "a caller of infer gets one response"
    assert ENGINE_PARAMETER in config.parameters
