"""Soft edges by a network."""

from __future__ import annotations

from pathlib import Path

import torch

from triton_diffusers.preprocess.nets.hed import HedNetwork
from triton_diffusers.preprocess.networks import Network, Networks, with_weights
from triton_diffusers.preprocess.registry import HED, Pixels
from triton_diffusers.preprocess.sizes import grey, map_at_size_of, to_tensor, to_working_size


class Hed:
    """Edges as probabilities, white on black."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        network = self._networks.get(HED, _load)
        edges = network.module(to_tensor(to_working_size(pixels), self._networks.device))
        return grey(map_at_size_of(pixels, edges.cpu().numpy()))


def _load(folder: Path) -> Network:
    return with_weights(HedNetwork(), folder / "ControlNetHED.pth")
