"""From a request's fields to a job: checked, with its seed drawn."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from triton_diffusers.api.contract import CONTRACTS, CONTROL_INPUTS, Contract
from triton_diffusers.api.decode import decode_request
from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.api.unknown import unknown_fields
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.fields import values_from_json
from triton_diffusers.gateway.inputs import split_inputs
from triton_diffusers.gateway.jobs.job import NewJob
from triton_diffusers.gateway.settings import Model
from triton_diffusers.gateway.work import work_of
from triton_diffusers.settings import Settings

BASE, CONTROLNET = "ensemble", "ensemble_controlnet"
MODELS: tuple[str, ...] = get_args(Model)
"""Models that a request may name."""

_CONTROL_FIELDS = frozenset(field.name for field in CONTROL_INPUTS)
ASSUMED = ModelDefaults(side=512)
"""Defaults of a model that no runner has announced yet."""
# Fields with a meaning of their own here: results are stored by the runner, and read from the store.
_RUNNERS_OWN = {"return_images": True, "use_base64": False, "store_images": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrigin:
    """Particulars of the HTTP request that a job comes from.

    ``defaults`` stand in for the model's own values in checks and in the estimate of work; the request itself leaves
    them to the model.
    """

    dialect: str
    defaults: ModelDefaults = ASSUMED
    traceparent: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    waiting: bool = False

    def numbered(self, number: int) -> JobOrigin:
        """Return the origin of one of several jobs in a request, each with an idempotency key of its own."""
        return replace(self, idempotency_key=self.idempotency_key and f"{self.idempotency_key}/{number}")


def model_for(document: Mapping[str, Any], model: str = "") -> str:
    """Return the model of a request: ``model`` if it is named, else one that has the request's fields.

    Raises:
        InvalidRequest: there is no such model.
    """
    if model and model not in MODELS:
        raise InvalidRequest("model", model, f"must be one of: {', '.join(MODELS)}")
    if model:
        return model
    return CONTROLNET if any(document.get(name) is not None for name in _CONTROL_FIELDS) else BASE


def new_job(
    document: Mapping[str, Any],
    origin: JobOrigin,
    settings: Settings,
    *,
    model: str,
    priority: int = 0,
    files: Mapping[str, bytes | tuple[bytes, ...]] | None = None,
) -> NewJob:
    """Return the job of a request in the contract's fields, given as JSON; ``files`` are values that came beside it.

    ``task_id`` becomes the job's label and is made up if it is missing. The seed is drawn here, so that a job that runs
    twice draws the same image twice.

    Raises:
        InvalidRequest: for the first field that is invalid.
    """
    given = {name: value for name, value in document.items() if value is not None}
    given.setdefault("task_id", secrets.token_hex(8))
    return job_of_values(
        values_from_json(given, CONTRACTS[model].inputs) | dict(files or {}),
        origin,
        settings,
        model=model,
        priority=priority,
        unknown=(given | dict(files or {})).keys() - {field.name for field in CONTRACTS[model].inputs},
    )


def job_of_values(
    values: dict[str, Any],
    origin: JobOrigin,
    settings: Settings,
    *,
    model: str,
    priority: int = 0,
    unknown: Sequence[str] | set[str] = (),
) -> NewJob:
    """Return the job of a request whose fields have the contract's values; ``unknown`` names are told in warnings."""
    contract = CONTRACTS[model]
    if strays := sorted(_CONTROL_FIELDS.intersection(unknown)):
        raise InvalidRequest(strays[0], "", "this model has no ControlNets; sd_controlnet has")
    request = _checked(values, contract, settings, origin.defaults)
    own = {"seed": str(request.seed), "task_id": "", "save_dir": request.save_dir, **_RUNNERS_OWN}
    fields, inputs = split_inputs(values | own, contract.inputs)
    work = work_of(request)
    return NewJob(
        model=model,
        request={
            "fields": fields,
            "use_base64": values["use_base64"],
            "warnings": unknown_fields(unknown, contract.inputs),
            "image_steps": work.image_steps,
        },
        work=work.megapixel_steps,
        images=request.image_num,
        priority=priority,
        label=request.task_id,
        dialect=origin.dialect,
        inputs=inputs,
        traceparent=origin.traceparent,
        idempotency_key=origin.idempotency_key,
        fingerprint=origin.fingerprint,
        waiting=origin.waiting,
        max_wait_seconds=request.timeout_seconds or None,
    )


def _checked(
    values: Mapping[str, Any], contract: Contract, settings: Settings, defaults: ModelDefaults
) -> GenerationRequest:
    """Return the request as the model will see it. An ensemble translates; its second model must not be asked to."""
    translates = contract in (CONTRACTS[BASE], CONTRACTS[CONTROLNET])
    return decode_request({**values, "use_translate": ()} if translates else values, settings, defaults)
