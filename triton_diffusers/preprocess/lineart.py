"""Line drawings by a network."""

from __future__ import annotations

from pathlib import Path

import torch

from triton_diffusers.preprocess.nets.lineart import LineartNetwork
from triton_diffusers.preprocess.networks import Network, Networks, with_weights
from triton_diffusers.preprocess.registry import LINEART, Pixels
from triton_diffusers.preprocess.sizes import grey, map_at_size_of, to_tensor, to_working_size


class Lineart:
    """A drawing in white on black, as its ControlNets expect."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        network = self._networks.get(LINEART, _load)
        paper = network.module(to_tensor(to_working_size(pixels), self._networks.device) / 255)
        return grey(1 - map_at_size_of(pixels, paper.cpu().numpy()))


def _load(folder: Path) -> Network:
    return with_weights(LineartNetwork(), folder / "sk_model.pth")
