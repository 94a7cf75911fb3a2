"""The sidecar of a checkpoint in one file: files beside it with facts that tensors cannot tell.

``<stem>.config/`` is a diffusers folder without the big weights (``unet/config.json``, ``scheduler/…``, ``tokenizer/``,
a ``safety_checker/`` with its ``feature_extractor/``); everything in it is optional, and configs need only the keys
that differ. ``<stem>.yaml`` (or ``.yml``) is the original training config; ``<stem>.json`` may have keys of a
scheduler's config.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.training_config import TrainingConfig

_WHOLE_FOLDERS = ("tokenizer", "tokenizer_2", "safety_checker", "feature_extractor")


@dataclass(frozen=True)
class Sidecar:
    """The files beside ``checkpoint``, whether they exist or not."""

    checkpoint: Path

    @property
    def folder(self) -> Path:
        """Return ``<stem>.config/``."""
        return self.checkpoint.with_suffix(".config")

    @property
    def yaml(self) -> Path:
        """Return ``<stem>.yaml``, or ``<stem>.yml`` if only that exists."""
        short = self.checkpoint.with_suffix(".yml")
        long = self.checkpoint.with_suffix(".yaml")
        return short if short.is_file() and not long.is_file() else long

    @property
    def json(self) -> Path:
        """Return ``<stem>.json``."""
        return self.checkpoint.with_suffix(".json")

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every existing file, sorted."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return tuple(sorted([*found, *(path for path in (self.yaml, self.json) if path.is_file())]))

    @property
    def whole_folders(self) -> tuple[Path, ...]:
        """Return the folders that become part of the model unchanged."""
        return tuple(path for name in _WHOLE_FOLDERS if (path := self.folder / name).is_dir())

    def config_file(self, component: str) -> Path:
        """Return the folder's config of ``unet``, ``vae``, ``text_encoder`` or ``scheduler``."""
        return self.folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")

    def config(self, component: str) -> dict[str, Any]:
        """Return what the folder says of a component; empty if nothing.

        Raises: LoadError: the file is not a JSON object.
        """
        path = self.config_file(component)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise LoadError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise LoadError(f"{path} is not a JSON object")
        return content

    @cached_property
    def training(self) -> TrainingConfig | None:
        """Return the training config beside the checkpoint, if there is one. Raises ``LoadError``."""
        return TrainingConfig.read(self.yaml) if self.yaml.is_file() else None

    @property
    def text_layer(self) -> str | None:
        """Return the layer of an OpenCLIP text encoder that the training config names."""
        return self.training.text_layer if self.training is not None else None
