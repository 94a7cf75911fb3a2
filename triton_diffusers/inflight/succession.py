"""Which engine may take over from another while requests are in flight."""

from __future__ import annotations

from triton_diffusers.engines import Engine

# What the requests in flight and the loop's users have been told, and what their latents and LoRAs were made for.
_LASTING = (
    "latent_channels",
    "unet_channels",
    "pixels_per_latent",
    "native_side",
    "text_layers",
    "scheduler_config",
    "lora_targets",
)


class UnfitEngine(ValueError):
    """An engine cannot take over; the message says what is different."""


def check_successor(running: Engine, successor: Engine) -> None:
    """Raise ``UnfitEngine`` unless ``successor`` runs the same checkpoint, as far as its shapes and configs tell."""
    for name in _LASTING:
        before, after = getattr(running, name), getattr(successor, name)
        if before != after:
            shown = "" if name in ("scheduler_config", "lora_targets") else f": {after} instead of {before}"
            raise UnfitEngine(f"the new engine runs another model: its {name} is different{shown}")
