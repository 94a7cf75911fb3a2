"""Statements of a checkpoint in one file, and of the files beside it, about how it is to be sampled.

They come from the operator's files, from marks among the tensors, and from metadata of trainers. The first statement
of a key counts; contradictions are logged.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.kinds import by_global_step
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.checkpoints.weights import Weights

log = logging.getLogger(__name__)

PIXELS = "pixels"
"""Key of a statement: the side of the images that the model was trained on."""
SCALING_FACTOR = "scaling_factor"
"""Key of a statement: the factor of the autoencoder's latents. All others are keys of a scheduler's config."""

_PREDICTIONS = {
    **dict.fromkeys(("eps", "epsilon"), "epsilon"),
    **dict.fromkeys(("v", "v_pred", "v_prediction", "velocity"), "v_prediction"),
    **dict.fromkeys(("x0", "sample"), "sample"),
}
_SCHEDULE = (
    "beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "rescale_betas_zero_snr",
    "timestep_spacing", "trained_betas",
)  # fmt: skip
_SIDES = range(64, 4097)
_NO_SIGNAL = 1e-6  # of the last timestep; models without a zero signal-to-noise ratio there have 0.0047
_NAMES = {0: "SDXL", 1: "1.x", 2: "2.x"}
_UNSUPPORTED = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


@dataclass(frozen=True, slots=True)
class Statement:
    """A ``value`` for a ``key``, and the ``source`` that says so, for people."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements that count, by key."""

    found: Mapping[str, Statement]

    def get(self, key: str) -> Any:
        """Return the value for ``key``; None if nothing says one."""
        return self.found[key].value if key in self.found else None

    @property
    def scheduler(self) -> dict[str, Any]:
        """Return the keys of the scheduler's config."""
        config = {key: said.value for key, said in self.found.items() if key not in (PIXELS, SCALING_FACTOR)}
        if config.get("rescale_betas_zero_snr"):
            # Without its last timestep, where the image is all noise, such a model makes no dark or bright images.
            config.setdefault("timestep_spacing", "trailing")
        return config


def read_statements(source: Path, sidecar: Sidecar, weights: Weights, *, generation: int) -> Statements:
    """Return what ``source`` and its sidecar say; ``generation`` is 1 or 2 for 1.x and 2.x, 0 for other families.

    Raises: LoadError: a value in an operator's file is invalid, or the file is of an unsupported kind.
    """
    found: dict[str, Statement] = {}
    for one in _all(source, sidecar, weights, generation):
        kept = found.setdefault(one.key, one)
        if kept.value != one.value:
            log.warning(
                "%s: %s says %s %s, and %s says %s: the former counts",
                source, kept.source, one.key, kept.value, one.source, one.value,
            )  # fmt: skip
    if found:
        shown = [said for said in found.values() if said.key in (*_SCHEDULE, PIXELS, SCALING_FACTOR)]
        told = "; ".join(f"{said.key} {_shown(said.value)} ({said.source})" for said in shown)
        log.info("%s says of itself: %s", source, told)
    said = Statements(found)
    if said.get("rescale_betas_zero_snr") and said.get("prediction_type") in ("epsilon", None):
        log.warning("%s: models with zero terminal SNR are expected to predict v", source)
    return said


def _all(source: Path, sidecar: Sidecar, weights: Weights, generation: int) -> Iterator[Statement]:
    """Yield every statement, the most deliberate first."""
    name = f"{sidecar.folder.name}/scheduler"
    for key, value in sidecar.config("scheduler").items():
        yield Statement(key, _prediction(value, name) if key == "prediction_type" else value, name)
    training = sidecar.training
    if training is not None:
        name = training.path.name
        if training.prediction_type is not None:
            yield Statement("prediction_type", training.prediction_type, name)
        for key, value in training.scheduler.items():
            yield Statement(key, value, name)
        if training.scaling_factor is not None:
            yield Statement(SCALING_FACTOR, training.scaling_factor, name)
    yield from _json(sidecar)
    yield from _marks(source, weights.tensors)
    yield from _metadata(source, weights.metadata, generation)
    if training is not None:  # what the original code takes if the file says nothing
        yield Statement("prediction_type", training.prediction_type or "epsilon", training.path.name)
    published = by_global_step(weights.global_step) if generation == 2 and training is None else None
    if published is not None:
        yield Statement("prediction_type", published, f"global_step {weights.global_step}")


def _json(sidecar: Sidecar) -> Iterator[Statement]:
    """Yield the scheduler's keys in ``<stem>.json``, where other programs keep other things."""
    path = sidecar.json
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        log.warning("%s is not JSON, and ignored", path)
        return
    content = content if isinstance(content, dict) else {}
    if (kind := content.get("parameterization")) is not None:
        content.setdefault("prediction_type", kind)
    for key in _SCHEDULE:
        if (value := content.get(key)) is not None:
            yield Statement(key, _prediction(value, path.name) if key == "prediction_type" else value, path.name)


def _marks(source: Path, tensors: Mapping[str, torch.Tensor]) -> Iterator[Statement]:
    """Yield what tensors say that are part of no network."""
    if found := [name for name in _UNSUPPORTED if name in tensors]:
        raise LoadError(f"{source}: not supported yet: EDM ({found[0]})")
    if "v_pred" in tensors:
        yield Statement("prediction_type", "v_prediction", "v_pred in the file")
    if "ztsnr" in tensors:
        yield Statement("rescale_betas_zero_snr", True, "ztsnr in the file")
    signal = tensors.get("alphas_cumprod")
    if signal is not None and signal.ndim == 1 and len(signal) > 1 and abs(float(signal[-1])) < _NO_SIGNAL:
        yield Statement("rescale_betas_zero_snr", True, "alphas_cumprod in the file")


def _metadata(source: Path, metadata: Mapping[str, str], generation: int) -> Iterator[Statement]:
    """Yield what ``modelspec.*`` and then ``ss_*`` say in the header of a safetensors file."""
    architecture = metadata.get("modelspec.architecture", "")
    base = metadata.get("ss_base_model_version", "")
    for key, given in (("modelspec.architecture", architecture), ("ss_base_model_version", base)):
        if (said := _generation(given)) is not None and said != generation:
            log.warning("%s: %s says %s, and its tensors are of %s", source, key, given[:80], _NAMES[generation])
    if (predicted := metadata.get("modelspec.prediction_type")) is not None:
        kind = _PREDICTIONS.get(predicted.strip().lower().replace("-", "_"))
        if kind is None:
            log.warning("%s: modelspec.prediction_type %.80r is unknown, and ignored", source, predicted)
        else:
            yield Statement("prediction_type", kind, "modelspec.prediction_type")
    if generation == 2 and architecture.startswith("stable-diffusion-v2-768-v"):
        yield Statement("prediction_type", "v_prediction", "modelspec.architecture")
    elif generation == 2 and architecture.startswith("stable-diffusion-v2-512"):
        yield Statement("prediction_type", "epsilon", "modelspec.architecture")
    if (side := _side(metadata.get("modelspec.resolution", ""))) is not None:
        yield Statement(PIXELS, side, "modelspec.resolution")
    if (span := metadata.get("modelspec.timestep_range", "0,999").replace(" ", "")) not in ("0,999", "0,1000"):
        log.warning("%s was trained for the timesteps %.40s alone (modelspec.timestep_range)", source, span)
    if metadata.get("ss_v_parameterization") == "True" or base.startswith("sd_v2_v"):
        key = "ss_base_model_version" if base.startswith("sd_v2_v") else "ss_v_parameterization"
        yield Statement("prediction_type", "v_prediction", key)
    if metadata.get("ss_zero_terminal_snr") == "True":
        yield Statement("rescale_betas_zero_snr", True, "ss_zero_terminal_snr")


def _generation(name: str) -> int | None:
    """Return 1 or 2 for a trainer's name of an architecture, 0 for another family, None if it names none."""
    lowered = name.lower()
    for number in (1, 2):
        if lowered.startswith((f"stable-diffusion-v{number}", f"sd_v{number}", f"sd_{number}")):
            return number
    return 0 if lowered.startswith(("stable-diffusion-", "sd_", "sd3", "sdxl", "flux")) else None


def _side(resolution: str) -> int | None:
    """Return the side of a square such as ``768x768`` or ``768``; None for anything else."""
    sides = {int(side) for side in resolution.lower().split("x") if side.strip().isdecimal() and len(side) < 6}
    (side,) = sides if len(sides) == 1 else (0,)
    return side if side in _SIDES else None


def _prediction(value: Any, source: str) -> str:
    kind = _PREDICTIONS.get(value) if isinstance(value, str) else None
    if kind is None:
        raise LoadError(f"{source}: prediction_type {value!r} is invalid: known: epsilon, v_prediction, sample")
    return kind


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
