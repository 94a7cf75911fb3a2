from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.emoji import latents as module
from training.emoji.backgrounds import BACKGROUNDS, WHITE, unit_rgb
from training.emoji.latents import JITTERS, MILD_JITTERS, LatentCache, build_cache, compose_variants


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


def test_subjects_are_elsewhere_only_where_they_may() -> None:
    cache = LatentCache(torch.zeros(5, len(BACKGROUNDS), len(JITTERS), 4, 16, 16, dtype=torch.half))
    may_move = torch.arange(400) < 200
    _, _, _, how = cache.batch(400, torch.Generator().manual_seed(0), may_move)
    moved = how >= MILD_JITTERS
    assert not moved[200:].any()
    assert 0.2 < moved[:200].float().mean() < 0.5
    assert set(how[moved].tolist()) == set(range(MILD_JITTERS, len(JITTERS)))


def test_the_black_background_may_have_pictures_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(vae: object, images: torch.Tensor) -> torch.Tensor:
        """Return the middle pixel's red, instead of latents."""
        return images[:, :1, 16:17, 16:17].expand(-1, 4, 16, 16)

    def run_workers(target: Callable[..., None], workers: int, *arguments: Any) -> None:
        for rank in range(workers):
            target(rank, *arguments)

    monkeypatch.setattr(module, "encode", encode)
    monkeypatch.setattr(module, "run_workers", run_workers)
    black = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    black[:, 3] = 255
    white = torch.full_like(black, 255)
    vae: Any = SimpleNamespace(config=SimpleNamespace(scaling_factor=2.0))
    cache = build_cache(vae, black, tmp_path / "latents.pt", 2, on_black=white)
    for index, background in enumerate(BACKGROUNDS):
        assert cache.latents[0, index, 0, 0, 0, 0] == (2.0 if background.name == "black" else -2.0)
