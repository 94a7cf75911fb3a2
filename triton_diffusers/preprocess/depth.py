"""Depth maps by a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForDepthEstimation

from triton_diffusers.preprocess.networks import Network, Networks, load_pretrained
from triton_diffusers.preprocess.registry import DEPTH, Pixels
from triton_diffusers.preprocess.sizes import Map, grey, map_at_size_of, working_size


class Depth:
    """Near is white, far is black; the nearest and farthest points of an image use the whole range."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def process(self, pixels: Pixels) -> Pixels:
        return grey(map_at_size_of(pixels, nearness_in_range(self.nearness(pixels))))

    @torch.inference_mode()
    def nearness(self, pixels: Pixels) -> Map:
        """Return the network's raw values, greater is nearer; float32, at the working size of the image."""
        network = self._networks.get(DEPTH, _load)
        inputs = network.processor(pixels, return_tensors="pt", input_data_format="channels_last")
        predicted = network.module(inputs["pixel_values"].to(self._networks.device)).predicted_depth[None].float()
        width, height = working_size(pixels.shape[1], pixels.shape[0])
        nearness = F.interpolate(predicted, (height, width), mode="bicubic", align_corners=False)[0, 0]
        return np.asarray(nearness.cpu().numpy())


def nearness_in_range(nearness: Map) -> Map:
    """Return the map scaled to 0 … 1; all 0 if it is constant."""
    shifted = nearness - nearness.min()
    return np.asarray(shifted / max(float(shifted.max()), 1e-6))


def _load(folder: Path) -> Network:
    return load_pretrained(AutoModelForDepthEstimation, folder)
