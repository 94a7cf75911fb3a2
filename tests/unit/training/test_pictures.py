import pytest
import torch
from PIL import Image

from training.emoji.pictures import compose, from_image, load_pictures, to_image


@pytest.fixture
def square() -> torch.Tensor:
    """One opaque red square in the middle of a transparent 32x32 picture, premultiplied."""
    picture = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    picture[:, 0, 8:24, 8:24] = 255
    picture[:, 3, 8:24, 8:24] = 255
    return picture


def test_compose_fills_what_is_transparent(square: torch.Tensor) -> None:
    blue = torch.tensor([[-1.0, -1.0, 1.0]])
    composed = compose(square, blue)[0]
    assert composed[:, 0, 0].tolist() == [-1.0, -1.0, 1.0]
    assert composed[:, 16, 16].tolist() == [1.0, -1.0, -1.0]


def test_jitter_moves_and_shrinks_without_a_dark_rim(square: torch.Tensor) -> None:
    white = torch.ones(1, 3)
    composed = compose(square, white, torch.tensor([0.5]), torch.tensor([[0.25, 0.0]]))[0]
    columns = (composed[1] < 0).any(0).nonzero().flatten()
    assert columns.min() == 16
    assert columns.max() == 23
    assert composed[0].min() > 0.99


def test_images_survive_the_round_trip() -> None:
    picture = torch.rand(3, 8, 6) * 2 - 1
    assert (from_image(to_image(picture)) - picture).abs().max() < 1 / 127


def test_loaded_pictures_are_premultiplied(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "half.webp"
    Image.new("RGBA", (16, 16), (200, 100, 0, 128)).save(path, lossless=True)
    picture = load_pictures([path], size=8)[0]
    assert picture[3].float().mean() == 128
    assert abs(picture[0].float().mean() - 100) <= 1
