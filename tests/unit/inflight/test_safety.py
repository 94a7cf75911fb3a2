"""The safety checker judges exactly the returned pixels."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, stand_before_the_next_step
from triton_diffusers.api.request import Expansion, Function, SafetyAction
from triton_diffusers.errors import EngineFailure
from triton_diffusers.inflight.safety import release_control_images
from triton_diffusers.jobs.board import JobBoard

RED = (255, 0, 0)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def is_red_somewhere(pixels: np.ndarray[Any, Any]) -> bool:
    return bool((pixels == RED).all(-1).any())


class Watched(FakeEngine):
    """Engine whose checker records images and flags the pure red of input images."""

    def __init__(self) -> None:
        super().__init__()
        self.judged: list[np.ndarray[Any, Any]] = []
        self.is_unsafe = self._judge

    def _judge(self, pixels: np.ndarray[Any, Any]) -> bool:
        self.judged.append(pixels.copy())
        return is_red_somewhere(pixels)


def small_mask() -> Image.Image:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 16, 16))
    return mask


PASTED: tuple[dict[str, Any], ...] = (
    {"function": Function.INPAINT, "mask": png(small_mask())},
    {"function": Function.OUTPAINT, "expansion": Expansion(left=8, right=0, up=0, down=0)},
    {"function": Function.INPAINT, "mask": png(small_mask()), "width": 100, "height": 90},
)


@pytest.mark.parametrize("fields", PASTED)
def test_pasted_back_pixels_are_judged(start_loop: StartLoop, fields: dict[str, Any]) -> None:
    loop = start_loop(engine := Watched())
    finish(loop, job := loop.submit(request_for(image=png(Image.new("RGB", (64, 64), RED)), **fields)))
    assert job.result is not None
    assert job.result.is_nsfw == (True,)
    assert not opened(images_of(job)[0]).any()
    assert is_red_somewhere(engine.judged[-1])


@pytest.mark.parametrize("fields", [*PASTED, {"width": 100, "height": 90}])
def test_the_judged_image_is_the_one_returned(start_loop: StartLoop, fields: dict[str, Any]) -> None:
    if "function" in fields:
        fields = {"image": png(Image.new("RGB", (64, 64), (0, 200, 0))), **fields}
    loop = start_loop(engine := Watched())
    finish(loop, job := loop.submit(request_for(image_num=2, **fields)))
    assert job.result is not None
    assert job.result.is_nsfw == (False, False)
    for judged, returned in zip(engine.judged, images_of(job), strict=True):
        assert np.array_equal(judged, opened(returned))


def test_the_judged_preview_is_the_one_shown(start_loop: StartLoop, board: JobBoard) -> None:
    loop = start_loop(engine := Watched(), board=board)
    engine.turnstile.hold()
    loop.submit(request_for(width=256, height=128, steps=6))
    engine.turnstile.allow(2)
    stand_before_the_next_step(engine)
    board.want_preview("a-task")
    engine.turnstile.allow(1)
    assert board.entries("a-task")[0].preview is not None
    assert engine.judged[0].shape == (64, 128, 3)


@pytest.mark.parametrize("fields", PASTED)
def test_a_flagged_image_is_returned_as_it_is_where_that_is_allowed(
    start_loop: StartLoop, fields: dict[str, Any]
) -> None:
    request = request_for(image=png(Image.new("RGB", (64, 64), RED)), safety_action=SafetyAction.FLAG, **fields)
    loop = start_loop(engine := Watched())
    finish(loop, job := loop.submit(request))
    assert job.result is not None
    assert job.result.is_nsfw == (True,)
    assert np.array_equal(opened(images_of(job)[0]), engine.judged[-1])


@pytest.mark.parametrize(("action", "shown"), [(SafetyAction.FLAG, True), (SafetyAction.BLACKEN, False)])
def test_flagged_previews_are_shown_only_with_images(
    start_loop: StartLoop, board: JobBoard, action: SafetyAction, shown: bool
) -> None:
    engine = FakeEngine(is_unsafe=lambda pixels: True)
    loop = start_loop(engine, board=board)
    engine.turnstile.hold()
    loop.submit(request_for(safety_action=action))
    engine.turnstile.allow(1)
    board.want_preview("a-task")
    engine.turnstile.allow(1)
    assert (board.entries("a-task")[0].preview is not None) == shown


@pytest.mark.parametrize("action", list(SafetyAction))
def test_an_image_without_a_verdict_is_not_returned(
    start_loop: StartLoop, board: JobBoard, action: SafetyAction
) -> None:
    """A checker in half precision that overflows."""

    def fail(pixels: np.ndarray[Any, Any]) -> bool:
        raise EngineFailure("the safety checker gave NaN")

    engine = FakeEngine()
    loop = start_loop(engine, board=board)
    engine.is_unsafe = fail  # the trial at the start is over
    engine.turnstile.hold()
    job = loop.submit(request_for(safety_action=action))
    engine.turnstile.allow(1)
    board.want_preview("a-task")
    engine.turnstile.allow(1)
    assert action is SafetyAction.FLAG or board.entries("a-task")[0].preview is None
    engine.turnstile.open()
    finish(loop, job)
    assert job.result is None
    assert "the safety checker gave NaN" in str(job.error)


def test_a_flagged_control_image_is_returned_as_it_is_where_that_is_allowed() -> None:
    red = np.full((8, 8, 3), RED, np.uint8)
    request = SimpleNamespace(return_control_image=True, safety_action=SafetyAction.FLAG)
    job: Any = SimpleNamespace(request=request, control_images=[red], warnings=[])
    release_control_images(Watched(), job)
    assert job.control_images == [red]
    assert job.warnings == ["control_images_base64: image 1 is flagged by the safety checker"]


@pytest.mark.parametrize("returned", [True, False])
def test_a_flagged_control_image_is_blackened_with_a_warning(returned: bool) -> None:
    red, green = (np.full((8, 8, 3), colour, np.uint8) for colour in (RED, (0, 255, 0)))
    job: Any = SimpleNamespace(
        request=SimpleNamespace(return_control_image=returned, safety_action=SafetyAction.BLACKEN),
        control_images=[red, green, red],
        warnings=[],
    )
    release_control_images(engine := Watched(), job)
    if not returned:
        assert not engine.judged
        return
    assert len(engine.judged) == 2  # the shared image once
    assert [bool(image.any()) for image in job.control_images] == [False, True, False]
    assert [warning.split(":")[1].split()[1] for warning in job.warnings] == ["1", "3"]
