"""Poses by two networks: one detects people, one finds their joints."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

from triton_diffusers.preprocess.networks import Network, Networks, load_pretrained
from triton_diffusers.preprocess.registry import PEOPLE, POSE, Pixels

_PERSON = "person"
_MAX_PEOPLE = 16  # limits the time for a crowd
_MIN_SCORE = 0.3
_MIN_SIDE = 2.0  # pixels of a person's box
_JOINTS = 17  # of COCO

# A joint's position in pixels; None if it is not seen.
Joint = tuple[float, float] | None

# OpenPose's 18 joints as indices of COCO's 17; the neck (None) is not among these.
_NECK = 1
_SHOULDERS = (6, 5)
_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
# Limbs by their two joints, in the order of their colours: arms, legs, head.
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
# The circle of hues in 18 steps.
_COLOURS = tuple(
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(step / 18, 1.0, 1.0)) for step in range(len(_OF_COCO))
)
_LIMB_BRIGHTNESS = 0.6
_RADIUS = 4 / 512  # of a joint, and half a limb's width, relative to the image's shorter side


class Openpose:
    """People as OpenPose's coloured skeletons on black."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        boxes = self._people(pixels)
        return drawing(pixels.shape, self._poses(pixels, boxes) if len(boxes) else [])

    def _people(self, pixels: Pixels) -> np.ndarray[Any, Any]:
        """Return boxes (n, 4) of x, y, width and height in pixels, the best first."""
        network = self._networks.get(PEOPLE, _load_people)
        inputs = network.processor(pixels, return_tensors="pt", input_data_format="channels_last")
        outputs = network.module(inputs["pixel_values"].to(self._networks.device))
        found = network.processor.post_process_object_detection(
            outputs, threshold=_MIN_SCORE, target_sizes=[pixels.shape[:2]]
        )[0]
        people = found["labels"] == network.module.config.label2id[_PERSON]
        order = found["scores"][people].argsort(descending=True)
        boxes = found["boxes"][people][order].cpu().numpy()
        height, width = pixels.shape[:2]
        boxes = boxes.clip(0, [width, height, width, height])
        boxes[:, 2:] -= boxes[:, :2]
        large_enough: np.ndarray[Any, Any] = boxes[(boxes[:, 2:] >= _MIN_SIDE).all(axis=1)]
        return large_enough[:_MAX_PEOPLE]

    def _poses(self, pixels: Pixels, boxes: np.ndarray[Any, Any]) -> list[list[Joint]]:
        network = self._networks.get(POSE, _load_pose)
        inputs = network.processor(pixels, boxes=[boxes], return_tensors="pt", input_data_format="channels_last")
        outputs = network.module(inputs["pixel_values"].to(self._networks.device))
        found = network.processor.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        height, width = pixels.shape[:2]
        return [
            [
                # Joints that refinement moves outside the image, or to NaN, are unseen.
                (x, y) if score > _MIN_SCORE and 0 <= x < width and 0 <= y < height else None
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


def openpose_joints(coco: Sequence[Joint]) -> list[Joint]:
    """Return COCO's 17 joints as OpenPose's 18: the neck is halfway between the shoulders."""
    joints = [None if index is None else coco[index] for index in _OF_COCO]
    right, left = (coco[index] for index in _SHOULDERS)
    if right is not None and left is not None:
        joints[_NECK] = (right[0] + left[0]) / 2, (right[1] + left[1]) / 2
    return joints


def draw(canvas: Pixels, joints: Sequence[Joint]) -> None:
    """Draw a person's 18 joints, and the limbs with both ends seen."""
    radius = max(1, round(min(canvas.shape[:2]) * _RADIUS))
    for (start, end), colour in zip(_LIMBS, _COLOURS, strict=False):
        first, second = joints[start], joints[end]
        if first is None or second is None:
            continue
        across, down = second[0] - first[0], second[1] - first[1]
        middle = round((first[0] + second[0]) / 2), round((first[1] + second[1]) / 2)
        half = round(math.hypot(across, down) / 2), radius
        angle = round(math.degrees(math.atan2(down, across)))
        outline = np.array(cv2.ellipse2Poly(middle, half, angle, 0, 360, 1))
        cv2.fillConvexPoly(canvas, outline, [int(part * _LIMB_BRIGHTNESS) for part in colour])
    for joint, colour in zip(joints, _COLOURS, strict=True):
        if joint is not None:
            cv2.circle(canvas, (int(joint[0]), int(joint[1])), radius, colour, thickness=-1)


def drawing(shape: tuple[int, ...], people: Sequence[Sequence[Joint]]) -> Pixels:
    """Return people, given by COCO's joints, drawn on black of ``shape`` (height, width, 3)."""
    canvas = np.zeros(shape, np.uint8)
    for coco in people:
        draw(canvas, openpose_joints(coco))
    return canvas
