"""Soft edges by a network."""

from __future__ import annotations

from pathlib import Path

import torch

from triton_diffusers.preprocess.nets.hed import HedNetwork
from triton_diffusers.preprocess.networks import Network, Networks, with_weights
from triton_diffusers.preprocess.protocol import Pixels
from triton_diffusers.preprocess.sizes import Map, grey, map_at_size_of, to_tensor, to_working_size
from triton_diffusers.preprocess.weights import HED


class Hed:
    """Edges as probabilities, white on black."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def process(self, pixels: Pixels) -> Pixels:
        return grey(self.edges(pixels))

    @torch.inference_mode()
    def edges(self, pixels: Pixels) -> Map:
        """Probabilities of an edge, float32 (height, width)."""
        network = self._networks.get(HED, _load)
        edges = network.module(to_tensor(to_working_size(pixels), self._networks.device))
        return map_at_size_of(pixels, edges.cpu().numpy())


def _load(folder: Path) -> Network:
    return with_weights(HedNetwork(), folder / "ControlNetHED.pth")
