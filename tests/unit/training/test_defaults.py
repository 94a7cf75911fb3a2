from collections.abc import Sequence
from typing import Any

import pytest
import torch

from training.emoji.backgrounds import WHITE, unit_rgb
from training.emoji.defaults import BASE, SHOWN_SUBJECTS, compare, compared
from training.emoji.pictures import PICTURE_SIZE, compose
from training.emoji.sheet import CAPTION_HEIGHT, MARGIN
from training.emoji.subjects import Subject, load_subjects
from triton_diffusers.sampling.profiles import EXACT

SUBJECTS = load_subjects()[:20]


@pytest.fixture
def pictures() -> torch.Tensor:
    """Random pictures without transparency in the middle, and with it around."""
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(len(SUBJECTS), 4, PICTURE_SIZE, PICTURE_SIZE, dtype=torch.uint8)
    coarse = torch.randint(256, (len(SUBJECTS), 3, 8, 8), generator=generator).to(torch.uint8)
    found[:, :3, 32:96, 32:96] = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    found[:, 3, 32:96, 32:96] = 255
    return found


class Painter:
    """A studio that draws each subject perfectly, but for guidance 7, with which it draws another one on gray."""

    def __init__(self, subjects: Sequence[Subject], pictures: torch.Tensor) -> None:
        self._wanted, self._pictures = compared(subjects), pictures
        self.wishes: list[dict[str, Any]] = []

    def draw(self, wishes: Sequence[dict[str, Any]]) -> torch.Tensor:
        self.wishes += wishes
        wrong = wishes[0]["guidance_scale"] == 7.0
        colours = torch.stack([unit_rgb(one.background) for one in self._wanted]) * (0.1 if wrong else 1.0)
        return compose(self._pictures[[one.index - wrong for one in self._wanted]], colours)


def test_compared_images_are_on_white_and_on_colours() -> None:
    wanted = compared(SUBJECTS)
    assert [one.background is WHITE for one in wanted] == [True] * 16 + [False] * 16
    assert len({one.subject for one in wanted}) == 16
    assert len({one.seed for one in wanted}) == 32


def test_figures_of_right_and_wrong_images(pictures: torch.Tensor) -> None:
    painter = Painter(SUBJECTS, pictures)
    ((axis, figures, sheet),) = compare(painter, SUBJECTS, pictures, {"guidance_scale": (3.0, 7.0)})
    assert axis == "guidance_scale"
    right, wrong = figures["3.0"], figures["7.0"]
    assert (right["subject_right"], right["background_right"], right["white_border"]) == (1.0, 1.0, 255.0)
    assert right["distance"] == pytest.approx(0.0, abs=1e-3)
    assert (wrong["subject_right"], wrong["background_right"]) == (0.0, 0.125)  # gray is right twice
    assert wrong["distance"] > 1
    row = PICTURE_SIZE + MARGIN + CAPTION_HEIGHT
    assert sheet.size == (2 * SHOWN_SUBJECTS * (PICTURE_SIZE + MARGIN) + MARGIN, 2 * row + MARGIN)


def test_equal_settings_are_drawn_once(pictures: torch.Tensor) -> None:
    painter = Painter(SUBJECTS, pictures)
    axes = {"guidance_scale": (BASE["guidance_scale"],), "steps": (BASE["steps"], 5)}
    assert [axis for axis, _, _ in compare(painter, SUBJECTS, pictures, axes)] == ["guidance_scale", "steps"]
    assert [(wish["steps"], wish["profile"]) for wish in painter.wishes] == [(20, EXACT)] * 32 + [(5, EXACT)] * 32
