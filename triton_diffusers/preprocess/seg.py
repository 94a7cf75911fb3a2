"""What is where, by a network that knows ADE20K's classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from transformers import AutoModelForSemanticSegmentation

from triton_diffusers.preprocess.ade20k import CLASSES, PALETTE
from triton_diffusers.preprocess.networks import Network, Networks, load_pretrained
from triton_diffusers.preprocess.registry import SEGMENTATION, Pixels


class Seg:
    """Each pixel in its class's colour."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        network = self._networks.get(SEGMENTATION, _load)
        inputs = network.processor(pixels, return_tensors="pt", input_data_format="channels_last")
        logits = network.module(inputs["pixel_values"].to(self._networks.device)).logits
        classes = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        height, width = pixels.shape[:2]
        # Between two classes there is no third one.
        colours: Pixels = PALETTE[cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)]
        return colours


def _load(folder: Path) -> Network:
    network = load_pretrained(AutoModelForSemanticSegmentation, folder)
    if (known := network.module.config.num_labels) != CLASSES:
        raise ValueError(f"it knows {known} classes, not the {CLASSES} of ADE20K")
    return network
