"""Compiled artifacts of a model: where they lie, what they were made of, and whether they can be used here.

    <model_dir>/optimized_model/<engine>-<precision>/{manifest.json, unet/…, text_encoder/…, …}

Nothing here knows how an artifact is made or run; that is what compilers are for.
"""

from __future__ import annotations

from triton_diffusers.artifacts.damage import damage
from triton_diffusers.artifacts.fingerprint import fingerprint
from triton_diffusers.artifacts.manifest import ArtifactError, ArtifactFile, Figures, Manifest
from triton_diffusers.artifacts.store import OPTIMIZED_MODEL, Artifact, ArtifactStore, Here, misfit, store_folder

__all__ = [
    "OPTIMIZED_MODEL",
    "Artifact",
    "ArtifactError",
    "ArtifactFile",
    "ArtifactStore",
    "Figures",
    "Here",
    "Manifest",
    "damage",
    "fingerprint",
    "misfit",
    "store_folder",
]
