import cv2
import numpy as np
import torch

from training.emoji.controls import BLOCKS, CONTROLS, colour_blocks, edges


def box() -> torch.Tensor:
    """Return a white box on black, [1, 3, 64, 64]."""
    picture = torch.full((1, 3, 64, 64), -1.0)
    picture[..., 16:48, 8:40] = 1.0
    return picture


def test_edges_are_those_of_the_servers_preprocessor() -> None:
    painted = edges(box())
    assert painted.shape == (1, 3, 64, 64)
    assert painted.unique().tolist() == [0.0, 1.0]
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 8:40] = 255
    wanted = torch.from_numpy(cv2.Canny(pixels, 100.0, 200.0)).float() / 255.0
    assert wanted.sum() > 100
    assert torch.equal(painted[0], wanted.expand(3, -1, -1))


def test_blocks_are_flat_and_have_the_mean_colours() -> None:
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    painted = colour_blocks(picture)
    side = 64 // BLOCKS
    block = painted[1, :, side : 2 * side, 2 * side : 3 * side]
    mean = (picture[1, :, side : 2 * side, 2 * side : 3 * side].mean((1, 2)) + 1.0) / 2.0
    torch.testing.assert_close(block, mean[:, None, None].expand_as(block))
    assert len(painted[0, 0].unique()) == BLOCKS**2


def test_the_first_is_the_model_directorys_own() -> None:
    assert [str(control.folder) for control in CONTROLS] == ["controlnet", "controlnets/blocks"]
    assert len({control.stage for control in CONTROLS}) == len(CONTROLS)
