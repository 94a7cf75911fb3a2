"""Stable Diffusion with ControlNets."""

from triton_diffusers.contract import CONTRACTS
from triton_diffusers.triton_adapter.models import GeneratingModel


class TritonPythonModel(GeneratingModel):
    """The same as ``sd_base``, led by control pictures."""

    contract = CONTRACTS["sd_controlnet"]
