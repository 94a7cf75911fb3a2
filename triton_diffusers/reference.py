"""The reference page, made from the tables: ``python -m triton_diffusers.reference`` writes ``docs/reference.md``.

The page is committed; a test compares it with the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_core import PydanticUndefined

from triton_diffusers.contract import (
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
from triton_diffusers.schedulers import SCHEDULERS
from triton_diffusers.settings import PREFIX, Settings
from triton_diffusers.triton_adapter.families import FAMILIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"

_INTRODUCTION = """# Reference

Made from the tables in `triton_diffusers/` by `make generated`; do not edit.

Models: `sd_base` makes pictures, `sd_controlnet` does so with [ControlNets](controlnet.md), `translator` makes prompts
English ([translation](translation.md)), `ensemble` and `ensemble_controlnet` are the translator and then one of the two,
`jobs` tells about the jobs of all, whoever called them. All answer Triton's `infer` (HTTP and gRPC) and `generate` (plain JSON).

## How values travel

- Every tensor has a batch dimension of 1: a single value has shape `[1, 1]`, a list `[1, n]`. Those of `jobs` have none:
  `[1]` and `[n]`. One request is one row; for several pictures use `image_num`, or send several requests.
- Leaving a field out is the same as sending its default. A client that always sends all fields lets Triton hand requests
  to the model together; the SDK does.
- In JSON (`generate`) a list of one element may be written as the element, and a reply's list of one element is written so.
  Numbers must be numbers and `seed` must be a string: Triton refuses other types before the model sees them (status 500).
- In JSON, a single value under a name that is no field of the model is ignored, and `warnings` says so.
- Bytes do not survive JSON: use `use_base64` there and `return_images` with the other two.

## Errors

A request that fails is answered with a Triton error whose message names the field, the value and the limit.

| what | gRPC | HTTP |
|---|---|---|
| a field's value is not accepted | `INVALID_ARGUMENT` | 400 |
| a file of the model directory, a preprocessor's weights or, of `jobs`, the task is not there | `NOT_FOUND` | 404 or, of `generate`, 400, by Triton's version |
| the queue is full, or the server is stopping: try again | `UNAVAILABLE` | 503 |
| the job was cancelled | `CANCELLED` | 400 or 499, by Triton's version |
| the model process died (`Stub process … is not healthy`): try again in some seconds | `INTERNAL` | 400 or 500, by Triton's version |
| the engine loop has failed, and the model is started anew: try again in some seconds | `UNAVAILABLE` | 503 |
| the model is being brought back (`… has no available versions`): try again in some seconds | `NOT_FOUND` | 404 |
| anything else is the server's fault | `INTERNAL` | 500 |
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
            "By their common name or by diffusers' class name (which stands for the first of its rows), in any case.\n",
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
