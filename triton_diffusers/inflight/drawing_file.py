"""Model defaults in ``drawing.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.sampling.schedulers import scheduler_name

FILE = "drawing.json"


@dataclass(frozen=True, slots=True)
class DrawingFile:
    """Content of ``drawing.json``; None stands for the default of the family."""

    enlarge: bool = False
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None

    @classmethod
    def read(cls, model_folder: Path) -> DrawingFile:
        """Read the file of a model directory, if it has one.

        Raises:
            LoadError: the file is unreadable or invalid.
        """
        path = model_folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise LoadError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise LoadError(f"{path} is invalid: expected a JSON object with {_KEYS}")
        for key, value in content.items():
            if key not in _RULES:
                raise LoadError(f"{path} is invalid: {key!r} is unknown; expected {_KEYS}")
            valid, rule = _RULES[key]
            if not valid(value):
                raise LoadError(f"{path}: {key}: {value!r} is invalid: {rule}")
        if "scheduler" in content:
            content["scheduler"] = scheduler_name(content["scheduler"])
        return cls(**content)

    def defaults(self, family: ModelDefaults) -> ModelDefaults:
        """Return the model's defaults: the file's, and else those of its family."""
        return ModelDefaults(
            side=family.side,
            steps=self.steps or family.steps,
            guidance_scale=self.guidance_scale or family.guidance_scale,
            scheduler=self.scheduler or family.scheduler,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_scheduler(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(scheduler_name(value))
    except InvalidRequest:
        return False


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "enlarge": (lambda value: isinstance(value, bool), "must be true or false"),
    "steps": (lambda value: type(value) is int and value >= 1, "must be a whole number, at least 1"),
    "guidance_scale": (lambda value: _is_number(value) and value >= 1, "must be a number, at least 1"),
    "scheduler": (_is_scheduler, "must be the name of a scheduler"),
}
_KEYS = ", ".join(f'"{key}"' for key in _RULES)
