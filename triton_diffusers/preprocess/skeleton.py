"""Drawing people as OpenPose does, which is what ControlNets for poses were trained on."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np

from triton_diffusers.preprocess.registry import Pixels

# A joint's place in pixels; None where it is not seen.
Joint = tuple[float, float] | None

# OpenPose's 18 joints but for the neck (None), as indices of COCO's 17.
_NECK = 1
_SHOULDERS = (6, 5)
_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
# Limbs by their two joints, in the order of their colours: arms, legs, head.
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
# Once around the circle of hues, in 18 steps.
_COLOURS = tuple(
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(step / 18, 1.0, 1.0)) for step in range(len(_OF_COCO))
)
_LIMB_BRIGHTNESS = 0.6
_RADIUS = 4 / 512  # of a joint, and half a limb's width; of the picture's shorter side


def openpose_joints(coco: Sequence[Joint]) -> list[Joint]:
    """COCO's 17 joints as OpenPose's 18: the neck is halfway between the shoulders."""
    joints = [None if index is None else coco[index] for index in _OF_COCO]
    right, left = (coco[index] for index in _SHOULDERS)
    if right is not None and left is not None:
        joints[_NECK] = (right[0] + left[0]) / 2, (right[1] + left[1]) / 2
    return joints


def draw(canvas: Pixels, joints: Sequence[Joint]) -> None:
    """Draw a person's 18 joints, and the limbs both of whose ends are seen."""
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
    """People by COCO's joints, on black of ``shape`` (height, width, 3)."""
    canvas = np.zeros(shape, np.uint8)
    for coco in people:
        draw(canvas, openpose_joints(coco))
    return canvas
