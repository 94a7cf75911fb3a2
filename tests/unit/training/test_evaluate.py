import torch

from training.emoji.backgrounds import WHITE, unit_rgb
from training.emoji.evaluate import border, rank_of_truth, references
from training.emoji.pictures import compose


def test_a_shifted_picture_is_still_nearest_to_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.zeros(5, 4, 64, 64, dtype=torch.uint8)
    pictures[:, 3, 16:48, 16:48] = 255
    pictures[:, :3, 16:48, 16:48] = torch.randint(256, (5, 3, 1, 1), generator=generator).to(torch.uint8)
    white = unit_rgb(WHITE).expand(5, 3)
    shifted = compose(pictures, white, torch.full((5,), 0.95), torch.full((5, 2), 0.03))
    assert rank_of_truth(shifted, references(pictures)).tolist() == [0] * 5
    assert rank_of_truth(shifted.flip(0), references(pictures))[0] > 0


def test_border_leaves_the_middle_out() -> None:
    picture = torch.ones(3, 16, 16)
    picture[:, 4:12, 4:12] = -1.0
    pixels = border(picture)
    assert pixels.shape == (16 * 16 - 8 * 8, 3)
    assert pixels.min() == 255
