"""The stages of training, each resumable: a module each, whose functions take the `Workshop`.

Those that train in workers hand a function of their module to new processes, which import it by name.
"""

from collections.abc import Callable
from functools import partial

from training.emoji.controls import CONTROLS
from training.emoji.lora_styles import STYLES
from training.emoji.stages import (
    controlnet,
    data,
    decoder,
    defaults,
    evaluation,
    evidence,
    lora,
    pipeline,
    safety,
    text,
    unet,
    vae,
)
from training.emoji.workshop import Workshop

__all__ = ["STAGES", "TRAINING"]

TRAINING: dict[str, Callable[[Workshop], None]] = {
    "data": data.fetch,
    "vae": vae.train,
    "text": text.train,
    "unet": unet.train,
    "decoder": decoder.train,
    "safety": safety.train,
    "export": pipeline.export,
    "evaluate": evaluation.measure,
    **{style.stage: partial(lora.train, style=style) for style in STYLES},
    **{control.stage: partial(controlnet.train, control=control) for control in CONTROLS},
    "evidence": evidence.gather,
    "evidence-controlnets": evidence.gather_of_controlnets,
    "defaults": defaults.choose,
    "samples": defaults.show,
}
"""The stages that `all` runs, in this order."""

STAGES = {"adopt": pipeline.adopt, **TRAINING}
