"""Options of the web UI, which each caller has for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from triton_diffusers.api.request import DEFAULT_QUALITY, OutputFormat
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.gateway.dialects.a1111.values import text, whole
from triton_diffusers.gateway.fleet import Checkpoint, Fleet
from triton_diffusers.gateway.jobs.table import JobTable

KIND: Final = "a1111"
"""Kind of the preferences that hold a caller's options."""
CHECKPOINT: Final = "sd_model_checkpoint"

_VAE, _CLIP_SKIP, _FORMAT, _QUALITY = "sd_vae", "CLIP_stop_at_last_layers", "samples_format", "jpeg_quality"
_FORMATS: Mapping[str, OutputFormat] = {
    "png": OutputFormat.PNG,
    "jpg": OutputFormat.JPEG,
    "jpeg": OutputFormat.JPEG,
    "webp": OutputFormat.WEBP,
}
# What the model directory has; another one cannot be chosen.
_OWN_VAES = ("", "Automatic", "None")
_MAX_CLIP_SKIP = 24


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one request: the caller's, with those that the request overrides."""

    values: Mapping[str, Any]
    checkpoint: Checkpoint | None

    @property
    def clip_skip(self) -> int:
        """Return the layer of the text encoder, counted from the end."""
        return int(self.values[_CLIP_SKIP])

    @property
    def output_format(self) -> OutputFormat:
        """Return the encoding of images."""
        return _FORMATS[self.values[_FORMAT]]

    @property
    def quality(self) -> int:
        """Return the quality of JPEG and WebP images."""
        return int(self.values[_QUALITY])

    @property
    def checkpoint_name(self) -> str:
        """Return the name of the checkpoint; empty if no runner is alive."""
        return self.checkpoint.name if self.checkpoint else ""


async def options_of(table: JobTable, owner: str, fleet: Fleet) -> Options:
    """Return a caller's options, with the defaults of those that were never set."""
    kept = await table.call(table.store.directory.preferences, owner, KIND)
    checkpoint = fleet.checkpoint(str(kept.get(CHECKPOINT, "")) or "") or fleet.checkpoint()
    name = checkpoint.name if checkpoint else ""
    defaults = {_FORMAT: "png", _QUALITY: DEFAULT_QUALITY, "sd_checkpoint_hash": "", _VAE: "Automatic", _CLIP_SKIP: 1}
    return Options({**defaults, **kept, CHECKPOINT: name}, checkpoint)


def overridden(options: Options, changes: Mapping[str, Any], fleet: Fleet) -> Options:
    """Return options with changes. Raises: InvalidRequest, NotFound."""
    checked = checked_changes(changes, fleet)
    checkpoint = fleet.checkpoint(checked[CHECKPOINT]) if CHECKPOINT in checked else options.checkpoint
    return Options({**options.values, **checked}, checkpoint)


def checked_changes(changes: Mapping[str, Any], fleet: Fleet) -> dict[str, Any]:
    """Return changes of options; null and the empty checkpoint change nothing, and options unknown here are kept.

    Raises: InvalidRequest. NotFound: there is no such checkpoint.
    """
    checked = {name: value for name, value in changes.items() if value is not None}
    if title := text(CHECKPOINT, checked.pop(CHECKPOINT, "")):
        checked[CHECKPOINT] = _checkpoint(title, fleet)
    if _CLIP_SKIP in checked:
        checked[_CLIP_SKIP] = whole(_CLIP_SKIP, checked[_CLIP_SKIP], 1, _MAX_CLIP_SKIP)
    if _QUALITY in checked:
        checked[_QUALITY] = whole(_QUALITY, checked[_QUALITY], 1, 100)
    if _FORMAT in checked:
        checked[_FORMAT] = text(_FORMAT, checked[_FORMAT]).lower()
        if checked[_FORMAT] not in _FORMATS:
            raise InvalidRequest(_FORMAT, checked[_FORMAT], f"must be one of: {', '.join(_FORMATS)}")
    if checked.get(_VAE, "") not in _OWN_VAES:
        raise InvalidRequest(_VAE, checked[_VAE], "the model has its own; use Automatic")
    return checked


def unknown_options(changes: Mapping[str, Any]) -> list[str]:
    """Return the names of options that change nothing here."""
    known = (CHECKPOINT, "sd_checkpoint_hash", _VAE, _CLIP_SKIP, _FORMAT, _QUALITY)
    return [name for name, value in changes.items() if name not in known and value is not None]


def _checkpoint(title: str, fleet: Fleet) -> str:
    """Return the name of the checkpoint that a title, a name or a file name stands for."""
    wanted = title.rpartition(" [")[0] if title.endswith("]") else title
    for name in (wanted, wanted.removesuffix(".safetensors").removesuffix(".ckpt")):
        for checkpoint in fleet.checkpoints:
            if checkpoint.name.casefold() == name.casefold():
                return checkpoint.name
    known = ", ".join(each.name for each in fleet.checkpoints) or "no runner is alive"
    raise NotFound(f"{CHECKPOINT}: {title[:80]!r} is invalid: must be one of: {known}")
