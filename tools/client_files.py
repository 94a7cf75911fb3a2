"""The client's copy of the contract: ``python -m tools.client_files`` writes its generated modules.

The files are committed, since the client is a distribution of its own; a test compares them with the tables.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from triton_diffusers.api.contract import (
    CONTROL_INPUTS,
    CONTROL_OUTPUTS,
    INPUTS,
    JOBS_INPUTS,
    JOBS_OUTPUTS,
    OUTPUTS,
    Input,
    Output,
)
from triton_diffusers.api.request import ResizeMode
from triton_diffusers.api.statuses import STATUSES
from triton_diffusers.api.synonyms import SYNONYMS, synonyms_of

CLIENT = Path(__file__).resolve().parent.parent / "client" / "triton_diffusers_client"

_HEADER = (
    "# Made from triton_diffusers/api/ by `make generated`; do not edit.\n\nfrom __future__ import annotations\n\n"
)
_MAX_ROW = 120 - len("    ,")  # characters
_PYTHON_TYPES = {"STRING": "str", "BYTES": "ImageInput", "INT64": "int", "FP32": "float", "BOOL": "bool"}
# Options whose Python type is wider than the wire's.
_WIDER: Mapping[str, str] = {
    "task_id": "str | None",
    "seed": "int | str | None",
    "expand": "Sequence[int]",
    "use_translate": "bool | None",
}
_GATEWAY_OPTIONS = ("priority: int", "webhook: str | Mapping[str, str | Sequence[str]]")
_OPTIONS_DOC = '''"""The options of a request, as keywords that editors complete and type checkers check."""

'''
_OPTIONS_START = '''from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from triton_diffusers_client.image_input import ImageInput


class Options(TypedDict, total=False):
    """Keywords of ``Client.generate`` and ``submit``: the wire's field names.

    An option that is left out (or None) has the server's default, except: ``task_id`` is a new random id, ``seed`` a
    random number chosen here (so that a retry draws the same image), ``return_images`` is true, and ``func_name`` is
    ``inpaint`` with a mask, ``outpaint`` with ``expand`` and ``i2i`` with an image. An image may be a URL, which the
    server fetches.

    With any of the options from ``controlnet_path`` on, the request goes to the counterpart of the model that has
    ControlNets: ``sd_controlnet`` for ``sd_base``, ``ensemble_controlnet`` for ``ensemble``. There an ``image`` without
    a ``control_image`` is what controls, unless ``func_name`` says otherwise.

    A gateway has two of its own: ``priority``, the place among the caller's jobs, -100 to 100, higher ones first; and
    ``webhook``, a URL that it calls when the job has ended, or a mapping of ``url`` and the ``events`` that it is for.
    """

'''


def files() -> Mapping[str, str]:
    """Return the generated modules by file name."""
    return {
        "wire.py": _wire(),
        "options.py": _options(),
        "triton/server_errors.py": _server_errors(),
        "synonyms.py": _synonyms(),
    }


def write(client: Path = CLIENT) -> None:
    """Write every module."""
    for name, text in files().items():
        (client / name).parent.mkdir(parents=True, exist_ok=True)
        (client / name).write_text(text)


def _wire() -> str:
    tables: Sequence[tuple[str, Sequence[Input] | Sequence[Output]]] = (
        ("INPUTS", INPUTS),
        ("OUTPUTS", OUTPUTS),
        ("CONTROL_INPUTS", CONTROL_INPUTS),
        ("CONTROL_OUTPUTS", CONTROL_OUTPUTS),
        ("JOBS_INPUTS", JOBS_INPUTS),
        ("JOBS_OUTPUTS", JOBS_OUTPUTS),
    )
    text = (
        '"""Tables of the wire: every input and output of the server\'s models, in the server\'s order."""\n\n'
        + _HEADER
    )
    text += "from triton_diffusers_client.field_types import InputField, OutputField\n"
    for name, table in tables:
        kind = "InputField" if isinstance(table[0], Input) else "OutputField"
        rows = [_row(field) for field in table]
        # As the formatter writes it: a short table in one line.
        body = f"({rows[0]},)" if len(rows) == 1 else "(\n" + "".join(f"    {row},\n" for row in rows) + ")"
        text += f"\n{name}: tuple[{kind}, ...] = {body}\n"
    modes = ", ".join(f'"{mode.name.lower()}": {mode.value}' for mode in ResizeMode)
    return text + f"\nRESIZE_MODES = {{{modes}}}\n"


def _row(field: Input | Output) -> str:
    if isinstance(field, Input):
        arguments = _input_arguments(field)
        row = f"InputField({', '.join(arguments)})"
        # As the formatter writes it: a long row with one argument on each line.
        return row if len(row) <= _MAX_ROW else "InputField(\n        " + ",\n        ".join(arguments) + ",\n    )"
    return f'OutputField("{field.name}", "{field.datatype}"{", many=True" if field.many else ""})'


def _input_arguments(field: Input) -> list[str]:
    optional = {
        "default_help": field.default_help.replace("`", ""),
        "minimum": field.minimum,
        "maximum": None if field.maximum == math.inf else field.maximum,
        "choices": tuple(map(str, field.choices)),
    }
    given = {name: value for name, value in optional.items() if value not in (None, "", ())}
    named = [f"{name}={_literal(int(value) if isinstance(value, int) else value)}" for name, value in given.items()]
    return [f'"{field.name}"', f'"{field.datatype}"', _literal(field.default), *named]


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value).replace("'", '"')


def _options() -> str:
    fields = [field for field in (*INPUTS, *CONTROL_INPUTS) if field.name != "prompt"]
    lines = "".join(f"    {field.name}: {_option_type(field)}\n" for field in fields)
    return _OPTIONS_DOC + _HEADER + _OPTIONS_START + lines + "".join(f"    {each}\n" for each in _GATEWAY_OPTIONS)


def _option_type(field: Input) -> str:
    if field.name in _WIDER:
        return _WIDER[field.name]
    if field.choices and not field.many:
        ordered = [*(['""'] if field.default == "" else []), *(f'"{choice}"' for choice in map(str, field.choices))]
        return f"Literal[{', '.join(ordered)}]"
    name = _PYTHON_TYPES[field.datatype]
    return f"{name} | Sequence[{name}]" if field.many else name


def _synonyms() -> str:
    text = '"""Names that other APIs (diffusers, A1111, ComfyUI, OpenAI, …) have for the fields of a request."""\n\n'
    text += _HEADER + "from collections.abc import Mapping\n\nSYNONYMS: Mapping[str, tuple[str, ...]] = {\n"
    text += "".join(f"    {_literal(name)}: {_literal(fields)},\n" for name, fields in SYNONYMS.items()) + "}\n\n\n"
    return text + inspect.getsource(synonyms_of)


def _server_errors() -> str:
    statuses = {row.grpc: row for row in reversed(STATUSES) if row.client_error != "RequestTimeoutError"}
    kinds = sorted({row.client_error for row in statuses.values()} | {"ClientError"})
    text = '"""Errors of the server by status."""\n\n' + _HEADER
    text += "from collections.abc import Mapping\n\nfrom triton_diffusers_client.errors import (\n"
    text += "".join(f"    {kind},\n" for kind in kinds) + ")\n\n"
    rows = sorted(statuses.values(), key=lambda row: (row.http, row.grpc))
    text += "GRPC_STATUSES: Mapping[str, type[ClientError]] = {\n"
    text += "".join(f'    "{row.grpc}": {row.client_error},\n' for row in rows) + "}\n\n"
    text += (
        "# The message of a cancelled job distinguishes it from an invalid request, which has the same HTTP status.\n"
    )
    text += "HTTP_STATUSES: Mapping[int, type[ClientError]] = {\n"
    text += "".join(f"    {row.http}: {row.client_error},\n" for row in rows if row.grpc != "CANCELLED") + "}\n"
    return text


if __name__ == "__main__":
    write()
