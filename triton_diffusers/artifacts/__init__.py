"""Compiled artifacts of a model: where they are stored, what they were made of, and if they can be used here.

    <model_dir>/optimized_model/<engine>-<precision>/{manifest.json, unet/…, text_encoder/…, …}

How an artifact is compiled or run is the business of ``engines.compilers``.
"""

from __future__ import annotations

from triton_diffusers.artifacts.damage import damage
from triton_diffusers.artifacts.fingerprint import fingerprint
from triton_diffusers.artifacts.manifest import ArtifactError, ArtifactFile, Figures, Manifest
from triton_diffusers.artifacts.store import (
    OPTIMIZED_MODEL,
    Artifact,
    ArtifactStore,
    BuildEnvironment,
    misfit,
    store_folder,
)

__all__ = [
    "OPTIMIZED_MODEL",
    "Artifact",
    "ArtifactError",
    "ArtifactFile",
    "ArtifactStore",
    "BuildEnvironment",
    "Figures",
    "Manifest",
    "damage",
    "fingerprint",
    "misfit",
    "store_folder",
]
