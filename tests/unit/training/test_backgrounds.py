import pytest
import torch

from training.emoji.backgrounds import BACKGROUNDS, WHITE, by_name, nearest, unit_rgb


def test_white_is_pure() -> None:
    assert WHITE.rgb == (255, 255, 255)
    assert unit_rgb(WHITE).tolist() == [1.0, 1.0, 1.0]


def test_every_colour_is_nearest_to_itself_with_room_to_spare() -> None:
    for background in BACKGROUNDS:
        assert nearest(torch.tensor(background.rgb)) is background
        others = [torch.tensor(other.rgb) for other in BACKGROUNDS if other is not background]
        gaps = [(other - torch.tensor(background.rgb)).float().norm() for other in others]
        assert min(gaps) > 60


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(KeyError, match="known: white, black"):
        by_name("mauve")
