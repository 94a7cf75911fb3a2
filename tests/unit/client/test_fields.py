"""The client's copy of the wire, and all that is made from it, against the server's contract."""

from __future__ import annotations

import dataclasses

from triton_diffusers.api import contract
from triton_diffusers_client import Generation, Options, Progress, fields
from triton_diffusers_client.request import GATEWAY_OPTIONS


def inputs_of(table: tuple[contract.Input, ...] | tuple[fields.InputField, ...]) -> list[tuple[object, ...]]:
    return [(field.name, field.datatype, field.default, type(field.default)) for field in table]


def outputs_of(table: tuple[contract.Output, ...] | tuple[fields.OutputField, ...]) -> list[tuple[object, ...]]:
    return [(field.name, field.datatype, field.many) for field in table]


def test_the_wire_is_the_contract() -> None:
    assert inputs_of(fields.CONTROL_INPUTS) == inputs_of(contract.CONTROL_INPUTS)
    assert outputs_of(fields.CONTROL_OUTPUTS) == outputs_of(contract.CONTROL_OUTPUTS)
    assert inputs_of(fields.INPUTS) == inputs_of(contract.INPUTS)
    assert outputs_of(fields.OUTPUTS) == outputs_of(contract.OUTPUTS)
    assert inputs_of(fields.JOBS_INPUTS) == inputs_of(contract.JOBS_INPUTS)
    assert outputs_of(fields.JOBS_OUTPUTS) == outputs_of(contract.JOBS_OUTPUTS)


def test_the_models_with_controlnets_have_the_fields_of_the_others_and_those() -> None:
    for model, controlled in fields.CONTROL_MODELS.items():
        plain, more = contract.CONTRACTS[model], contract.CONTRACTS[controlled]
        assert more.inputs == (*plain.inputs, *contract.CONTROL_INPUTS)
        assert more.outputs == (*plain.outputs, *contract.CONTROL_OUTPUTS)


def test_the_ensembles_have_the_fields_of_what_they_stand_in_for() -> None:
    for model, ensemble in fields.TRANSLATING_MODELS.items():
        assert contract.CONTRACTS[ensemble] == contract.CONTRACTS[model].of_ensemble


def test_the_default_model_translates_and_has_a_plain_counterpart() -> None:
    ensemble, plain = fields.DEFAULT_MODELS
    assert fields.TRANSLATING_MODELS[plain] == ensemble


def test_every_input_is_an_option() -> None:
    names = [field.name for field in (*contract.INPUTS, *contract.CONTROL_INPUTS)]
    assert {"prompt", *Options.__annotations__} == {*names, *GATEWAY_OPTIONS}


def test_every_output_reaches_the_caller() -> None:
    # A failed request is an exception, and images are images however they travelled.
    hidden = {"success", "images_base64"}
    generation = {field.name for field in dataclasses.fields(Generation)}
    assert generation == {field.name for field in contract.OUTPUTS} - hidden | {"control_images", "job_id"}
    of_gateways = {"id", "position", "wait_seconds"}
    progress = {field.name for field in dataclasses.fields(Progress)}
    assert progress - of_gateways == {field.name for field in contract.JOBS_OUTPUTS}
