"""Help, choices and ranges of the command line's arguments, made from the wire's tables."""

from __future__ import annotations

from triton_diffusers_client.fields import CONTROL_INPUTS, INPUTS, InputField

FIELDS = {field.name: field for field in (*INPUTS, *CONTROL_INPUTS)}


def choices_of(name: str) -> tuple[str, ...]:
    """Return the values that a field may have."""
    return FIELDS[name].choices


def default_of(name: str) -> str:
    """Return a field's default, in words if it stands for something else."""
    field = FIELDS[name]
    return field.default_help.replace(" (", ", ").replace(")", "") or str(field.default)


def help_of(name: str, text: str) -> str:
    """Return an argument's help: the text, the field's choices or range, and its default."""
    field = FIELDS[name]
    valid = f": {', '.join(field.choices)}" if field.choices else _range(field)
    return f"{text}{valid} (default: {default_of(name)})"


def _range(field: InputField) -> str:
    if field.maximum is not None and field.minimum is not None:
        return f", {field.minimum:g} to {field.maximum:g}"
    return "" if not field.minimum else f", at least {field.minimum:g}"
