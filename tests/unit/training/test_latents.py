import torch

from training.emoji.backgrounds import BACKGROUNDS, WHITE, unit_rgb
from training.emoji.latents import JITTERS, LatentCache, compose_variants


def test_variants_take_the_colour_and_the_jitter_of_their_indices() -> None:
    pictures = torch.zeros(2, 4, 32, 32, dtype=torch.uint8)
    pictures[:, 3, 4:28, 4:28] = 255
    where = torch.tensor([3, 7])
    plain, moved = (compose_variants(pictures, where, torch.full((2,), how)) for how in (0, 1))
    for index in range(2):
        assert torch.allclose(plain[index, :, 0, 0], unit_rgb(BACKGROUNDS[int(where[index])]))
    assert not torch.allclose(plain, moved)
    assert torch.equal(plain[:, :, 16, 16], torch.full((2, 3), -1.0))


def test_batches_return_the_latents_of_their_indices() -> None:
    shape = (5, len(BACKGROUNDS), len(JITTERS))
    numbers = torch.arange(5 * len(BACKGROUNDS) * len(JITTERS)).view(*shape, 1, 1, 1).expand(*shape, 4, 16, 16)
    cache = LatentCache(numbers.half())
    latents, which, where, how = cache.batch(200, torch.Generator().manual_seed(0))
    expected = (which * len(BACKGROUNDS) + where) * len(JITTERS) + how
    assert torch.equal(latents[:, 0, 0, 0], expected.float())
    white = (where == BACKGROUNDS.index(WHITE)).float().mean()
    assert 0.3 < white < 0.6
    assert (how == 0).float().mean() > 0.7
