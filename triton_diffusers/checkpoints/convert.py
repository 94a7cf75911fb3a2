"""Convert a checkpoint in one file to a folder in the diffusers layout."""

from __future__ import annotations

from pathlib import Path

from triton_diffusers.checkpoints import shapes
from triton_diffusers.checkpoints.conversion import Conversion
from triton_diffusers.checkpoints.conversion_sdxl import SdxlConversion
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.kinds import checked, is_sdxl
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.checkpoints.weights import read_weights


def convert(source: Path, folder: Path, *, needs_vae: bool = True) -> None:
    """Write ``source`` into the existing, empty ``folder``, in the precision of the file. Raises ``LoadError``.

    A file without an autoencoder makes a folder without one, unless it ``needs_vae``.
    """
    weights = read_weights(source)
    tensors = checked(source, weights.tensors, needs_vae=needs_vae)
    conversion = SdxlConversion if is_sdxl(tensors) else Conversion
    try:
        conversion(source, folder, Sidecar(source), tensors, weights).run()
    except KeyError as error:
        raise LoadError(f"{source} is incomplete: it has no tensor {error.args[0]}") from error
    except shapes.ShapeError as error:
        raise LoadError(f"{source}: {error}") from error
