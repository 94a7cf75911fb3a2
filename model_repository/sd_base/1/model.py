"""Stable Diffusion: images from text and from images."""

from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.triton_backend.models import GeneratingModel


class TritonPythonModel(GeneratingModel):
    """Draws what is asked for."""

    contract = CONTRACTS["sd_base"]
