"""Model repositories: models, their dependencies and probes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triton_diffusers.api.contract import ENGINE_PARAMETER, EXAMPLE_PARAMETER, PROBE_PARAMETER, settings_among
from triton_diffusers.launcher.errors import BadRepository

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Model:
    """One folder of the repository.

    ``steps`` are the models that an ensemble calls (empty for others); ``probe`` is the body of the tiny inference
    that shows the model to be alive, or None if the model is not watched; ``example`` is the body of a request for
    people to try, if there is one; ``required`` are the inputs that a request must carry. ``needs_engine``: an engine
    process runs its requests, which this model only holds; ``settings`` are those of its configuration.
    """

    name: str
    steps: frozenset[str] = frozenset()
    probe: Mapping[str, Any] | None = None
    example: Mapping[str, Any] | None = None
    required: tuple[str, ...] = ()
    needs_engine: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Repository:
    """The models under ``root``, by name."""

    root: Path
    models: Mapping[str, Model] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Repository:
        """Read every ``<model>/config.pbtxt`` under ``root``.

        Raises:
            BadRepository: no such folder, no model in it, an unreadable configuration, or a step that is not there.
        """
        if not root.is_dir():
            raise BadRepository(f"there is no model repository at {root}; name one with --model-repository")
        models = {folder.name: _read_model(folder) for folder in _model_folders(root)}
        if not models:
            raise BadRepository(f"the model repository {root} is empty: no */{CONFIG} in it")
        for model in models.values():
            if missing := model.steps - models.keys():
                raise BadRepository(f"{model.name} calls {sorted(missing)[0]}, which is not in the repository {root}")
        return cls(root, models)

    def without(self, names: Collection[str]) -> Repository:
        """Return the repository without these models, if they are there, and without the ensembles that call them.

        Raises:
            BadRepository: nothing is left.
        """
        gone = {*names, *(ensemble for name in names for ensemble in self.dependents(name))}
        left = {name: model for name, model in self.models.items() if name not in gone}
        if not left:
            raise BadRepository(f"the model repository {self.root} has nothing but {', '.join(self.models)}")
        return Repository(self.root, left)

    @property
    def watched(self) -> tuple[Model, ...]:
        """The models that have a probe."""
        return tuple(model for model in self.models.values() if model.probe is not None)

    @property
    def entrances(self) -> tuple[Model, ...]:
        """The models that callers are meant to call: those that are not a step of another one."""
        inner = frozenset[str]().union(*(model.steps for model in self.models.values()))
        return tuple(model for model in self.models.values() if model.name not in inner)

    def dependents(self, name: str) -> tuple[str, ...]:
        """Return the ensembles that reach the model ``name``, directly or through others, nearest first."""
        found: list[str] = []
        reached = {name}
        while more := [m.name for m in self.models.values() if m.steps & reached and m.name not in found]:
            found += more
            reached |= set(more)
        return tuple(found)


def _model_folders(root: Path) -> Iterator[Path]:
    return (folder for folder in sorted(root.iterdir()) if (folder / CONFIG).is_file())


def _read_model(folder: Path) -> Model:
    path = folder / CONFIG
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise BadRepository(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if config.name not in ("", folder.name):
        raise BadRepository(f"{path} names its model {config.name}; it must be the folder's name, {folder.name}")
    return Model(
        name=folder.name,
        steps=frozenset(step.model_name for step in config.ensemble_scheduling.step),
        probe=_read_request(path, config, PROBE_PARAMETER),
        example=_read_request(path, config, EXAMPLE_PARAMETER),
        required=tuple(tensor.name for tensor in config.input if not tensor.optional),
        needs_engine=ENGINE_PARAMETER in config.parameters,
        settings=settings_among({name: value.string_value for name, value in config.parameters.items()}),
    )


def _read_request(path: Path, config: Any, parameter: str) -> Mapping[str, Any] | None:
    """Return the request that a parameter of a model's configuration holds, or None if there is no such parameter."""
    if parameter not in config.parameters:
        return None
    text = config.parameters[parameter].string_value
    try:
        request = json.loads(text)
    except ValueError as error:
        raise BadRepository(f"{path}: the parameter {parameter!r} is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise BadRepository(f"{path}: the parameter {parameter!r} must be a JSON object of inputs, not {text}")
    return request
