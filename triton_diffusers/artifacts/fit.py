"""Whether an artifact can be used here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from triton_diffusers.artifacts.damage import damage
from triton_diffusers.artifacts.store import Artifact


@dataclass(frozen=True, kw_only=True)
class Here:
    """What an artifact has to fit: the model, and what the artifact's compiler says of this machine."""

    fingerprint: str
    machine: str
    versions: Mapping[str, str]


def misfit(artifact: Artifact, here: Here) -> str | None:
    """Why an artifact cannot be used here, in one sentence; None if it can. Reads no file, looks at their sizes."""
    manifest = artifact.manifest
    if manifest.fingerprint != here.fingerprint:
        return (
            f"{manifest.name} was built from another model "
            f"(fingerprint {manifest.fingerprint[:12]}, this model's is {here.fingerprint[:12]})"
        )
    if manifest.machine != here.machine:
        return f"{manifest.name} was built for another machine ({manifest.machine}; this is {here.machine})"
    for library in sorted({*manifest.versions, *here.versions}):
        then, now = manifest.versions.get(library, "none"), here.versions.get(library, "none")
        if then != now:
            return f"{manifest.name} was built with another version of {library} ({then}; this is {now})"
    if fault := damage(artifact.folder, manifest):
        return f"{manifest.name} is damaged: {fault}"
    return None
