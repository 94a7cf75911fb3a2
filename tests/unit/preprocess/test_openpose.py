"""Skeletons in OpenPose's order and colours."""

from __future__ import annotations

from triton_diffusers.preprocess.openpose import Joint, drawing, openpose_joints

SHAPE = (512, 512, 3)


def person(**joints: Joint) -> list[Joint]:
    """Return COCO's joints by index (``j5=(x, y)``); all others are unseen."""
    return [joints.get(f"j{index}") for index in range(17)]


def test_the_neck_is_between_the_shoulders() -> None:
    joints = openpose_joints(person(j5=(100.0, 50.0), j6=(60.0, 70.0)))
    assert joints[1] == (80.0, 60.0)
    assert (joints[2], joints[5]) == ((60.0, 70.0), (100.0, 50.0)), "right comes before left"
    assert openpose_joints(person(j5=(100.0, 50.0)))[1] is None


def test_joints_are_in_openposes_order() -> None:
    joints = openpose_joints([(float(index), 0.0) for index in range(17)])
    indices = [None if number == 1 or joint is None else int(joint[0]) for number, joint in enumerate(joints)]
    assert indices == [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]


def test_joints_and_limbs_have_openposes_colours() -> None:
    canvas = drawing(SHAPE, [person(j6=(100.0, 100.0), j8=(200.0, 100.0), j15=(300.0, 400.0))])
    assert canvas[100, 100].tolist() == [255, 170, 0], "right shoulder"
    assert canvas[100, 200].tolist() == [255, 255, 0], "right elbow"
    assert canvas[400, 300].tolist() == [85, 0, 255], "left ankle"
    assert canvas[100, 150].tolist() == [153, 102, 0], "upper arm, darker"
    assert canvas[300, 250].tolist() == [0, 0, 0]


def test_strokes_scale_with_the_image() -> None:
    widths = []
    for side in (64, 512, 1024):
        canvas = drawing((side, side, 3), [person(j8=(side / 2, side / 2))])
        widths.append(int(canvas.any(axis=2).any(axis=0).sum()))
    assert widths == [3, 9, 17]


def test_no_people_or_no_joints_draw_nothing() -> None:
    assert not drawing(SHAPE, []).any()
    assert not drawing(SHAPE, [[None] * 17]).any()
