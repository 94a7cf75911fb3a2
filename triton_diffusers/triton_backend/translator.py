"""The ``translator`` model: the prompts of a request, in English."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_diffusers.api.contract import TRANSLATED, TRANSLATOR_INPUTS, TRANSLATOR_OUTPUTS
from triton_diffusers.api.decode import read_values
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.settings import Settings
from triton_diffusers.translate.loading import load_translator
from triton_diffusers.translate.translator import Field, Outcome, Translation
from triton_diffusers.triton_backend.statuses import error_response
from triton_diffusers.triton_backend.tensors import input_arrays, output_tensors
from triton_diffusers.triton_backend.transports import is_plain_json, parameters_of


@dataclass(frozen=True, slots=True)
class _Asked:
    """Texts of a request; ``translate`` is True if they are to be translated."""

    fields: tuple[Field, ...]
    translate: bool


class TranslatorHandler:
    """Handler that translates the requests of a batch together."""

    def __init__(self, settings: Settings) -> None:
        self._translator = load_translator(settings)
        self._settings = settings

    def close(self) -> None:
        """Do nothing: no resources are held."""

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request; a bad one fails alone."""
        asked = [self._read(request) for request in requests]
        fields = [field for each in asked if isinstance(each, _Asked) and each.translate for field in each.fields]
        outcomes = iter(self._translator.translate(fields))
        return [self._answer(request, each, outcomes) for request, each in zip(requests, asked, strict=True)]

    def _read(self, request: pb_utils.InferenceRequest) -> _Asked | Exception:
        try:
            values = read_values(input_arrays(request), TRANSLATOR_INPUTS)
            chosen = values["use_translate"]
            if len(chosen) > 1:
                raise InvalidRequest("use_translate", chosen, "one value, or none")
        except Exception as error:  # noqa: BLE001  # one bad request must not fail its neighbours
            return error
        fields = tuple(Field(name, values[name]) for name in TRANSLATED)
        return _Asked(fields, translate=chosen[0] if chosen else self._settings.use_translate)

    def _answer(
        self, request: pb_utils.InferenceRequest, asked: _Asked | Exception, outcomes: Iterator[Outcome]
    ) -> pb_utils.InferenceResponse:
        """Answer a request, and take from ``outcomes`` those of its fields, if they were to be translated."""
        if isinstance(asked, Exception):
            return self._refuse(request, asked)
        found = [next(outcomes) if asked.translate else Translation(field.text) for field in asked.fields]
        values: dict[str, Any] = {"warnings": []}
        for field, outcome in zip(asked.fields, found, strict=True):
            if isinstance(outcome, Exception):
                return self._refuse(request, outcome)
            values[field.name] = outcome.text
            values["warnings"].extend(outcome.warnings)
        return pb_utils.InferenceResponse(
            output_tensors(values, TRANSLATOR_OUTPUTS, request.requested_output_names(), batched=True)
        )

    def _refuse(self, request: pb_utils.InferenceRequest, error: Exception) -> pb_utils.InferenceResponse:
        plain_json = False
        with suppress(ValueError):  # parameters that are not valid text must not fail the neighbours
            plain_json = is_plain_json(parameters_of(request), self._settings)
        return error_response(error, plain_json=plain_json)
