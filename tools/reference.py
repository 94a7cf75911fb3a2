"""The reference page, made from the tables: ``python -m tools.reference`` writes ``docs/reference.md``.

The page is committed; a test compares it with the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_core import PydanticUndefined

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
from triton_diffusers.sampling.schedulers import SCHEDULERS
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.triton_backend.families import FAMILIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"

_INTRODUCTION = """# Reference

Made from the tables in `triton_diffusers/` by `make generated`; do not edit.

Models: `sd_base` makes pictures, `sd_controlnet` does so with [ControlNets](adapters.md#controlnet), `translator` makes prompts
English ([translation](translation.md)), `ensemble` and `ensemble_controlnet` are the translator and then one of the two,
`jobs` tells about the jobs of all, whoever called them. All answer Triton's `infer` (HTTP and gRPC) and `generate` (plain JSON).

## How values travel

- Every tensor has a batch dimension of 1: a single value has shape `[1, 1]`, a list `[1, n]`. Those of `jobs` have none:
  `[1]` and `[n]`. One request is one row; for several pictures use `image_num`, or send several requests.
- Leaving a field out is the same as sending its default. A client that always sends all fields lets Triton hand requests
  to the model together; the SDK does.
- In JSON (`generate`) a list of one element may be written as the element, and a reply's list of one element is written so.
  Types are Triton's to check, and it is strict: see [plain JSON](#plain-json-what-triton-refuses).
- In JSON, a single value under a name that is not a field of the model is ignored, and `warnings` says so, with the name
  of the field that other APIs call so.
- Bytes do not survive JSON: use `use_base64` there and `return_images` with the other two. `serve` lets the models tell
  plain JSON from the others, and `return_images` is refused there. (A JSON request to HTTP's `infer` cannot be told from
  one that wants binary outputs: ask for `images` as binary data there.)

## Timeouts

A job ends `timeout_seconds` after its arrival, whoever still waits for it: running or queued, of a model or of an
ensemble. Send it if you may give up. Triton does not notice that an HTTP caller has hung up, and a gRPC call's cancellation
or deadline never reaches the models of an ensemble, so without a timeout the job runs to its end, and others wait for it.
`infer` callers can send Triton's own request timeout instead (`timeout` of `tritonclient`'s `infer`, in microseconds).
Any job can also be ended by `jobs`, with `cancel`.

## Errors

A request that fails is answered with a Triton error whose message names the field, the value and the limit.

| what | gRPC | HTTP, `infer` | HTTP, `generate` |
|---|---|---|---|
| a field's value is invalid | `INVALID_ARGUMENT` | 400 | 400 |
| a file of the model directory, a preprocessor's weights or, of `jobs`, the task does not exist | `NOT_FOUND` | 404 | 400, `… [NOT_FOUND]` |
| the queue is full, or the server is stopping: try again | `UNAVAILABLE` | 503 | 400, `… [UNAVAILABLE]` |
| the job was cancelled, or its timeout is over | `CANCELLED` | 400 (newer Tritons: 499) | 400, `… [CANCELLED]` |
| the engine loop has failed, and the model is started again: try again in some seconds | `UNAVAILABLE` | 503 | 400, `… [UNAVAILABLE]` |
| anything else is the server's fault | `INTERNAL` | 500 | 400, `… [INTERNAL]` |
| Triton: the model process died (`Stub process … is not healthy`): try again in some seconds | `INTERNAL` | 500 | 400 |
| Triton: the model is being brought back (`… has no available versions`): try again in some seconds | `NOT_FOUND` | 404 | 404 |
| Triton: there is no such model (`… is not found`) | `NOT_FOUND` | 404 | 404 |
| Triton: a required input is missing, an input has another type or shape, or is unknown | `INVALID_ARGUMENT` | 400 | see below |
| Triton: the body is not JSON, or holds values of other types | | 500 | 500 |

Triton (2.51) answers every error of a model with 400 in `generate`, whatever the model says; so in plain JSON the status
that it should be stands at the end of the message. Under an ensemble all statuses are the same, and messages begin with
`in ensemble '…', `.

### Plain JSON: what Triton refuses

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
}


def page() -> str:
    """The whole page."""
    schedulers = _table(
        ("name", "diffusers class", "config that differs"),
        (
            (name, f"`{class_name}`", ", ".join(f"`{key}={value}`" for key, value in overrides.items()))
            for name, (class_name, overrides) in SCHEDULERS.items()
        ),
    )
    return "\n".join(
        [
            _INTRODUCTION,
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
            _settings(),
            "## Metrics\n",
            "On Triton's metrics port, beside Triton's own. All have the label `model` too: the model that counts.\n",
            _metrics(),
        ]
    )


def _inputs(fields: Sequence[Input]) -> str:
    rows = (
        (f"`{field.name}`", _type(field), "required" if field.required else _default(field), field.help)
        for field in fields
    )
    return _table(("field", "type", "default", "meaning"), rows)


def _outputs(fields: Sequence[Output]) -> str:
    return _table(("field", "type", "meaning"), ((f"`{field.name}`", _type(field), field.help) for field in fields))


def _type(field: Input | Output) -> str:
    return f"{field.datatype} list" if field.many else field.datatype


def _default(field: Input) -> str:
    return "none" if field.default == () else _value(field.default)


def _value(value: object) -> str:
    return "empty" if value in ("", b"", ()) else f"`{value!s}`"


def _settings() -> str:
    rows = (
        (
            f"`{PREFIX}{name.upper()}`",
            _MADE_DEFAULTS[name] if field.default is PydanticUndefined else _value(field.default),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
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


if __name__ == "__main__":
    PAGE.write_text(page())
