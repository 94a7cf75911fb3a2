"""Stable Diffusion with ControlNets."""

from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.triton_backend.models import GeneratingModel


class TritonPythonModel(GeneratingModel):
    """``sd_base`` with control images."""

    contract = CONTRACTS["sd_controlnet"]
