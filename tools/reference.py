"""The reference page and the JSON schema of a request: ``python -m tools.reference`` writes both to ``docs/``.

Both are committed; a test compares them with the tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from triton_diffusers.api.contract import (
    CONTRACTS,
    CONTROL_INPUTS,
    CONTROL_OUTPUTS,
    INPUTS,
    JOBS_INPUTS,
    JOBS_OUTPUTS,
    OUTPUTS,
    TRANSLATOR_INPUTS,
    TRANSLATOR_OUTPUTS,
    Input,
    Output,
)
from triton_diffusers.api.schema import request_schema
from triton_diffusers.api.statuses import STATUSES
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.settings import GATEWAY_PREFIX, GatewaySettings
from triton_diffusers.sampling.schedulers import SCHEDULERS
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.triton_backend.families import FAMILIES

_DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = _DOCS / "reference.md"
SCHEMA = _DOCS / "request.schema.json"
_JOBS_PREFIX = JobTableSettings.model_config.get("env_prefix", "")

_INTRODUCTION = """# Reference

Made from the tables in `triton_diffusers/` by `make generated`; do not edit.

Models: `sd_base` makes images, `sd_controlnet` does so with [ControlNets](adapters.md#controlnet), `translator` translates prompts
to English ([translation](translation.md)), `ensemble` and `ensemble_controlnet` are the translator followed by one of the
two, `jobs` reports the jobs of all callers. All answer Triton's `infer` (HTTP and gRPC) and `generate` (plain JSON).

## Values on the wire

- Every tensor has a batch dimension of 1: a single value has shape `[1, 1]`, a list `[1, n]`. Those of `jobs` have none:
  `[1]` and `[n]`. One request is one row; for several images use `image_num`, or send several requests.
- Leaving a field out is the same as sending its default. A client that always sends all fields lets Triton hand requests
  to the model together; the SDK does.
- In JSON (`generate`) a list of one element may be written as the element, and a reply's list of one element is written so.
  Triton checks types, strictly: see [plain JSON](#plain-json-limits-of-triton).
- In JSON, a single value under a name that is not a field of the model is ignored, and `warnings` says so, with the name
  of the field that other APIs call so.
- Bytes do not survive JSON: use `use_base64` there and `return_images` with the other two. `serve` lets the models tell
  plain JSON from the others, and `return_images` is refused there. (A JSON request to HTTP's `infer` cannot be told from
  one that wants binary outputs: ask for `images` as binary data there.)

## Timeouts

A job ends `timeout_seconds` after its arrival, even if the caller still waits: running or queued, of a model or of an
ensemble. Send it if you may give up. Triton does not notice that an HTTP caller has hung up, and a gRPC call's cancellation
or deadline never reaches the models of an ensemble, so without a timeout the job runs to its end, and others wait for it.
`infer` callers can send Triton's own request timeout instead (`timeout` of `tritonclient`'s `infer`, in microseconds).
Any job can also be ended by `jobs`, with `cancel`.

## Errors

A request that fails is answered with a Triton error whose message names the field, the value and the limit. The code is
the API's own; Triton's answers have no place for it.

{errors}| Triton: the translator's process died (`Stub process … is not healthy`): try again in some seconds | `INTERNAL` | 500 | 400 | |
| Triton: the model is being reloaded (`… has no available versions`): try again in some seconds | `NOT_FOUND` | 404 | 404 | |
| Triton: the model is unknown (`… is not found`) | `NOT_FOUND` | 404 | 404 | |
| Triton: a required input is missing, an input has another type or shape, or is unknown | `INVALID_ARGUMENT` | 400 | see below | |
| Triton: the body is not JSON, or holds values of other types | | 500 | 500 | |

Triton (2.51) answers every error of a model with 400 in `generate`, so in plain JSON the message ends with the actual
status. Newer Tritons answer `CANCELLED` with 499 over HTTP. Under an ensemble all statuses are the same, and messages begin
with `in ensemble '…', `.

### Plain JSON: limits of Triton

Triton makes tensors of a `generate` request before a model sees it, by the types in the tables below, and converts nothing.
Its messages do not name the field:

| sent | answer |
|---|---|
| a number, `null` or `true` for a STRING, such as `"seed": 42`: write `"seed": "42"` | 500 `Unable to parse JSON bytes array: attempt to access JSON non-string as string` |
| text, `null`, `true`, or a number with a point (also `20.0`) for an INT64 | 500 `Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer` |
| text, `null` or `true` for an FP32 (`7` is fine) | 500 `Unable to parse 'data': attempt to access JSON non-number as double` |
| text, `null` or a number for a BOOL | 500 `Unable to parse 'data': attempt to access JSON non-boolean as boolean` |
| a list, an object or `null` under a name that is not a field | 400 `parameter '…' has invalid type. It should be either 'int', 'bool', or 'string'.` |
| a body that is not a JSON object | 500 `failed to parse the request JSON buffer: …` or `attempt to get members for non-object` |
| a body with `Content-Encoding` | 400 `Unsupported content-encoding, only 'identity' is supported.` |

Leave a field out rather than sending `null`.
"""

# Defaults that depend on the machine.
_MADE_DEFAULTS = {
    "runtime_dir": "in the system's temporary folder",
    "cache_dir": "`triton-diffusers` in `$XDG_CACHE_HOME`, else in `~/.cache`",
    "offline": "`HF_HUB_OFFLINE`, else `False`",
    "state_dir": "`triton-diffusers` in `$XDG_STATE_HOME`, else in `~/.local/state`",
}


def page() -> str:
    """Return the whole page."""
    schedulers = _table(
        ("name", "diffusers class", "config that differs"),
        (
            (name, f"`{class_name}`", ", ".join(f"`{key}={value}`" for key, value in overrides.items()))
            for name, (class_name, overrides) in SCHEDULERS.items()
        ),
    )
    return "\n".join(
        [
            _INTRODUCTION.replace("{errors}", _errors()),
            "## `sd_base`, `sd_controlnet` and their ensembles: request\n",
            _inputs(INPUTS),
            "`sd_controlnet` and `ensemble_controlnet` take these too:\n",
            _inputs(CONTROL_INPUTS),
            "## `sd_base`, `sd_controlnet` and their ensembles: reply\n",
            "An ensemble replies with "
            + ", ".join(
                f"`{seen.name}` for `{output.name}`"
                for output, seen in zip(OUTPUTS, CONTRACTS["ensemble"].outputs, strict=True)
                if seen != output
            )
            + ": an ensemble of Triton's cannot have an output that bears an input's name.\n",
            _outputs(OUTPUTS),
            "`sd_controlnet` and `ensemble_controlnet` reply with this too:\n",
            _outputs(CONTROL_OUTPUTS),
            "[`request.schema.json`](request.schema.json) describes a request in plain JSON, with the default limits.\n",
            "## `translator`: request\n",
            _inputs(TRANSLATOR_INPUTS),
            "## `translator`: reply\n",
            _outputs(TRANSLATOR_OUTPUTS),
            "## `jobs`: request\n",
            _inputs(JOBS_INPUTS),
            "## `jobs`: reply\n",
            "One element for each job, the newest first; several jobs may bear one `task_id`.\n",
            _outputs(JOBS_OUTPUTS),
            "## Schedulers\n",
            "By these names, those of ComfyUI and k-diffusion (`dpmpp_2m_sde`, `k_euler_a`, `dpm_2_ancestral`; `_karras`"
            " or `_exponential` after them), or diffusers' class names, each for the first of its rows. Capitals and"
            " punctuation do not matter. `DPM++ SDE` draws noise in every step, as elsewhere, but by diffusers' single-step"
            " solver: its images are not those of k-diffusion.\n",
            schedulers,
            "## Settings\n",
            f"Environment variables `{PREFIX}<NAME>` of the server, or `parameters` of a model's `config.pbtxt` (which"
            " win).\n",
            _settings(Settings, PREFIX),
            f"The [gateway](gateway.md) and its runners have settings of their own, `{GATEWAY_PREFIX}<NAME>`, and so has"
            f" their job table, `{_JOBS_PREFIX}<NAME>`:\n",
            _settings(GatewaySettings, GATEWAY_PREFIX),
            _settings(JobTableSettings, _JOBS_PREFIX),
            "## Metrics\n",
            "On Triton's metrics port, beside Triton's own. All have the label `model` too: the model that counts.\n",
            _metrics(),
        ]
    )


def _errors() -> str:
    rows = (
        (
            row.help,
            f"`{row.grpc}`",
            str(row.http),
            "400" if row.grpc == STATUSES[0].grpc else f"400, `… [{row.grpc}]`",
            str(row.code),
        )
        for row in STATUSES
    )
    return _table(("error", "gRPC", "HTTP, `infer`", "HTTP, `generate`", "code"), rows)


def _inputs(fields: Sequence[Input]) -> str:
    rows = ((f"`{field.name}`", _type(field), _default(field), _limits(field), field.help) for field in fields)
    return _table(("field", "type", "default", "values", "meaning"), rows)


def _outputs(fields: Sequence[Output]) -> str:
    return _table(("field", "type", "meaning"), ((f"`{field.name}`", _type(field), field.help) for field in fields))


def _type(field: Input | Output) -> str:
    return f"{field.datatype} list" if field.many else field.datatype


def _default(field: Input) -> str:
    if field.required:
        return "required"
    value = "none" if field.default == () else _value(field.default)
    return f"{value}: {field.default_help}" if field.default_help else value


def _limits(field: Input) -> str:
    """Return the choices or bounds of a field, with the settings that an operator can change."""
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    settings = Settings.model_construct()
    text = ""
    if (bounds := field.bounds(settings)) is not None:
        minimum, maximum = bounds
        names = " or ".join(f"`{name}`" for name in field.limit_settings)
        largest = f"{names} ({maximum:g})" if names else f"{maximum:g}"
        smallest = f"-{names}" if field.signed else f"{minimum:g}"
        text = f"at least {smallest}" if maximum == math.inf else f"{smallest} to {largest}"
    if field.length_setting:
        things = "values" if field.many else "characters"
        text = f"at most `{field.length_setting}` ({field.max_length(settings)}) {things}"
    return text


def _value(value: object) -> str:
    return "empty" if value in ("", b"", (), {}) else f"`{value!s}`"


def _settings(settings: type[BaseSettings], prefix: str) -> str:
    rows = (
        (
            f"`{prefix}{name.upper()}`",
            _MADE_DEFAULTS[name] if field.default is PydanticUndefined else _value(field.default),
            field.description or "",
        )
        for name, field in settings.model_fields.items()
    )
    return _table(("variable", "default", "meaning"), rows)


def _metrics() -> str:
    rows = (
        (f"`{family.name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), f"{family.help}.")
        for family in FAMILIES.values()
    )
    return _table(("metric", "type", "labels", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def schema_text() -> str:
    """Return the JSON schema of a request to the models that make images, with the limits of default settings."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **request_schema(Settings.model_construct()),
    }
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    SCHEMA.write_text(schema_text())
