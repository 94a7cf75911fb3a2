"""The original training config of a checkpoint (``<stem>.yaml``), as far as it matters for inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_diffusers.checkpoints.errors import LoadError

_MAX_BYTES = 2**20
_MAX_TIMESTEPS = 100_000  # a scheduler makes arrays of this length
_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
_BETA_SCHEDULES = {"linear": "scaled_linear"}  # diffusers' name; the original one is linear in the betas' square roots
_TEXT_LAYERS = ("last", "penultimate")


@dataclass(frozen=True)
class TrainingConfig:
    """The ``model.params`` of the file at ``path``. All methods raise ``LoadError`` for invalid values."""

    path: Path
    params: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """Read a YAML file. Raises ``LoadError``."""
        import yaml

        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
            if len(text) > _MAX_BYTES:
                raise LoadError(f"{path} has more than {_MAX_BYTES // 2**20} MB: it is not a Stable Diffusion config")

            class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
                def compose_node(self, parent: Any, index: Any) -> Any:
                    # Aliases make a small file a huge one, when it is merged or shown; such configs have none.
                    if self.check_event(yaml.AliasEvent):
                        raise LoadError(f"{path} has aliases: it is not a Stable Diffusion config")
                    return super().compose_node(parent, index)

            params = yaml.load(text, Loader)["model"]["params"]  # noqa: S506  # a SafeLoader
            if not isinstance(params, dict):
                raise TypeError
        except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise LoadError(f"{path} has no model.params: it is not a Stable Diffusion config") from error
        return cls(path, params)

    @property
    def prediction_type(self) -> str | None:
        """Return the prediction type; None if the file leaves it to the original code, which means epsilon."""
        kind = self.params.get("parameterization")
        if kind is None:
            return None
        if not isinstance(kind, str) or kind not in _PREDICTIONS:
            raise LoadError(f"{self.path}: parameterization {kind!r} is invalid: known: {', '.join(_PREDICTIONS)}")
        return _PREDICTIONS[kind]

    @property
    def text_layer(self) -> str | None:
        """Return the layer of an OpenCLIP text encoder that the UNet was trained with: ``last`` or ``penultimate``."""
        layer = self._params_of("cond_stage_config").get("layer")
        return layer if layer in _TEXT_LAYERS else None

    @property
    def scheduler(self) -> dict[str, Any]:
        """Return the noise schedule as keys of a scheduler's config."""
        found: dict[str, Any] = {}
        for ours, theirs in (("beta_start", "linear_start"), ("beta_end", "linear_end")):
            if (value := self._number(theirs)) is not None:
                found[ours] = value
        if (steps := self._number("timesteps")) is not None:
            if not 1 <= steps <= _MAX_TIMESTEPS:
                raise LoadError(f"{self.path}: timesteps {steps:g} is invalid: expected 1 to {_MAX_TIMESTEPS}")
            found["num_train_timesteps"] = int(steps)
        if (schedule := self.params.get("beta_schedule")) is not None:
            if not isinstance(schedule, str) or schedule not in _BETA_SCHEDULES:
                known = ", ".join(_BETA_SCHEDULES)
                raise LoadError(f"{self.path}: beta_schedule {schedule!r} is invalid: known: {known}")
            found["beta_schedule"] = _BETA_SCHEDULES[schedule]
        return found

    @property
    def scaling_factor(self) -> float | None:
        """Return the factor between the autoencoder's latents and the UNet's."""
        return self._number("scale_factor")

    def unet(self, channels: list[int]) -> dict[str, Any]:
        """Return keys of a UNet's config whose levels have ``channels``: sizes that tensors tell too, and heads."""
        params = self._params_of("unet_config")
        found = {
            ours: params[theirs]
            for ours, theirs in (
                ("in_channels", "in_channels"),
                ("out_channels", "out_channels"),
                ("cross_attention_dim", "context_dim"),
                ("layers_per_block", "num_res_blocks"),
            )
            if isinstance(params.get(theirs), int)
        }
        if isinstance(params.get("use_linear_in_transformer"), bool):
            found["use_linear_projection"] = params["use_linear_in_transformer"]
        heads, width = params.get("num_heads"), params.get("num_head_channels")
        if isinstance(width, int) and width > 0:
            found["attention_head_dim"] = [max(1, size // width) for size in channels]
        elif isinstance(heads, int) and heads > 0:
            found["attention_head_dim"] = heads
        return found

    def _params_of(self, component: str) -> Mapping[str, Any]:
        config = self.params.get(component)
        params = config.get("params") if isinstance(config, dict) else None
        return params if isinstance(params, dict) else {}

    def _number(self, name: str) -> float | None:
        value = self.params.get(name)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if not 0 < number < float("inf") or isinstance(value, bool):
            raise LoadError(f"{self.path}: {name} {value!r} is invalid: expected a positive number")
        return number
