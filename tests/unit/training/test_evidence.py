from collections.abc import Sequence
from typing import Any

import pytest
import torch

from training.emoji import evidence
from training.emoji.backgrounds import BACKGROUNDS, by_name, unit_rgb
from training.emoji.evaluate import references
from training.emoji.evidence import World, image_to_image, inpaint, outpaint, pairs
from training.emoji.evidence_measures import background_colour, centre, distances, overlap, silhouette
from training.emoji.pictures import PICTURE_SIZE, compose, from_image
from training.emoji.subjects import Subject
from triton_diffusers.api.request import Function, GenerationRequest
from triton_diffusers.images.inputs import ImageLoader
from triton_diffusers.settings import Settings

RED = (214.0, 40.0, 40.0)


@pytest.fixture
def world() -> World:
    """Boxes of different shapes and colours."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(6, 4, PICTURE_SIZE, PICTURE_SIZE, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        part = picture[:, 20 + 8 * index : 100, 16 : 110 - 8 * index]
        part[3] = 255
        part[:3] = torch.randint(256, (3, 1, 1), generator=generator).to(torch.uint8)
    names = ("box", "crate", "case", "chest", "tin", "can")
    return World([Subject(name, (name,), (name,)) for name in names], pictures, {})


class Echo:
    """A studio that draws what it was given: it redraws nothing."""

    def draw(self, wishes: Sequence[dict[str, Any]]) -> torch.Tensor:
        pictures = []
        for wish in wishes:
            request = GenerationRequest(
                **{"task_id": "echo", "width": PICTURE_SIZE, "height": PICTURE_SIZE, **wish},
            )
            if request.function is Function.TEXT_TO_IMAGE:
                pictures.append(torch.ones(3, PICTURE_SIZE, PICTURE_SIZE))
                continue
            source = ImageLoader(Settings(), {}).load(request)
            assert source is not None
            pictures.append(from_image(source.image))
        return torch.stack(pictures)


def test_measures_of_a_box() -> None:
    picture = unit_rgb(by_name("red"))[:, None, None].expand(3, 64, 64).clone()
    picture[:, 8:24, 32:48] = 1.0
    assert background_colour(picture).tolist() == list(RED)
    mask = silhouette(picture)
    assert mask.sum() == 16 * 16
    assert centre(mask).tolist() == [39.5, 15.5]
    assert overlap(mask, mask) == 1.0
    assert overlap(mask, mask.roll(8, 1)) == pytest.approx(1 / 3)
    assert overlap(torch.zeros_like(mask), torch.zeros_like(mask)) == 0.0
    assert centre(torch.zeros_like(mask)).tolist() == [32.0, 32.0]


def test_distances_are_to_the_own_reference(world: World) -> None:
    drawn = compose(world.pictures, torch.ones(6, 3))
    wanted = references(world.pictures)
    assert distances(drawn, wanted).max() < 1e-4
    assert distances(drawn.flip(0), wanted).min() > 1.0


def test_cases_are_of_two_subjects_on_two_colours() -> None:
    for case in pairs(100, 6, seed=0):
        assert case.given != case.asked
        assert case.given_colour is not case.asked_colour
        assert BACKGROUNDS[0] not in (case.given_colour, case.asked_colour)


@pytest.fixture(autouse=True)
def _few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "CASES", 4)


def test_an_echo_keeps_the_layout_and_misses_the_subject(world: World) -> None:
    studio: Any = Echo()
    found = image_to_image(studio, world)
    assert found.figures["i2i_background_of_the_input"] == 1.0
    assert found.figures["i2i_silhouette_overlap"] == 1.0
    assert found.figures["t2i_background_of_the_input"] == 0.0
    assert found.figures["nearer_to_the_prompt_than_to_the_input"] == 0.0
    assert found.figures["subject_top1"] == 0.0
    assert len(found.shown) == len(found.captions) == 8


def test_an_echo_keeps_all_outside_and_misses_inside(world: World) -> None:
    studio: Any = Echo()
    found = inpaint(studio, world).figures
    assert found["outside_psnr_db_least"] > 90
    assert found["inside_nearer_to_the_asked_than_to_the_input"] == 0.0
    assert found["inside_background_asked"] == 0.0


def test_a_copied_edge_continues_the_background(world: World) -> None:
    studio: Any = Echo()
    found = outpaint(studio, world).figures
    assert found["middle_psnr_db_least"] > 90
    assert found["colour_distance_most"] < 2
