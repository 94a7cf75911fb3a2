"""How people stand, by two networks: one finds them, one finds each one's joints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

from triton_diffusers.preprocess.networks import Network, Networks, load_pretrained
from triton_diffusers.preprocess.registry import PEOPLE, POSE, Pixels
from triton_diffusers.preprocess.skeleton import Joint, drawing

_PERSON = "person"
_MOST_PEOPLE = 16  # so that a crowd does not take minutes
_LEAST_SCORE = 0.3
_LEAST_SIDE = 2.0  # pixels of a person's box
_JOINTS = 17  # of COCO


class Openpose:
    """People as OpenPose's coloured skeletons, on black."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        boxes = self._people(pixels)
        return drawing(pixels.shape, self._poses(pixels, boxes) if len(boxes) else [])

    def _people(self, pixels: Pixels) -> np.ndarray[Any, Any]:
        """Boxes (n, 4) of x, y, width and height in pixels, the surest first."""
        network = self._networks.get(PEOPLE, _load_people)
        inputs = network.processor(pixels, return_tensors="pt", input_data_format="channels_last")
        outputs = network.module(inputs["pixel_values"].to(self._networks.device))
        found = network.processor.post_process_object_detection(
            outputs, threshold=_LEAST_SCORE, target_sizes=[pixels.shape[:2]]
        )[0]
        people = found["labels"] == network.module.config.label2id[_PERSON]
        order = found["scores"][people].argsort(descending=True)
        boxes = found["boxes"][people][order].cpu().numpy()
        height, width = pixels.shape[:2]
        boxes = boxes.clip(0, [width, height, width, height])
        boxes[:, 2:] -= boxes[:, :2]
        large_enough: np.ndarray[Any, Any] = boxes[(boxes[:, 2:] >= _LEAST_SIDE).all(axis=1)]
        return large_enough[:_MOST_PEOPLE]

    def _poses(self, pixels: Pixels, boxes: np.ndarray[Any, Any]) -> list[list[Joint]]:
        network = self._networks.get(POSE, _load_pose)
        inputs = network.processor(pixels, boxes=[boxes], return_tensors="pt", input_data_format="channels_last")
        outputs = network.module(inputs["pixel_values"].to(self._networks.device))
        found = network.processor.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        height, width = pixels.shape[:2]
        return [
            [
                # What is refined beyond the picture, or to no number at all, was not seen.
                (x, y) if score > _LEAST_SCORE and 0 <= x < width and 0 <= y < height else None
                for (x, y), score in zip(person["keypoints"].tolist(), person["scores"].tolist(), strict=True)
            ]
            for person in found
        ]


def _load_people(folder: Path) -> Network:
    network = load_pretrained(AutoModelForObjectDetection, folder)
    if _PERSON not in network.module.config.label2id:
        raise ValueError(f"it has no class {_PERSON!r}")
    return network


def _load_pose(folder: Path) -> Network:
    network = load_pretrained(VitPoseForPoseEstimation, folder)
    if (known := network.module.config.num_labels) != _JOINTS:
        raise ValueError(f"it knows {known} joints, not the {_JOINTS} of COCO")
    return network
