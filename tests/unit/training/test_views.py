from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.emoji import views as module
from training.emoji.backgrounds import BACKGROUNDS, unit_rgb
from training.emoji.captions import Captioner
from training.emoji.pictures import compose
from training.emoji.subjects import Subject
from training.emoji.views import MIN_SCALE, VIEWS_OF_A_SUBJECT, Views, build_view_cache, draw_views, held_out


@pytest.fixture
def pictures() -> torch.Tensor:
    """Two opaque pictures that are not symmetric."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(256, (2, 4, 32, 32), generator=generator).to(torch.uint8)
    drawn[:, 3] = 255
    return drawn


def test_held_out_subjects_are_spread_and_distinct() -> None:
    hidden = held_out(279)
    assert len(set(hidden)) == 50
    assert min(hidden) >= 0
    assert max(hidden) < 279
    gaps = [after - before for before, after in pairwise(hidden)]
    assert set(gaps) == {5, 6}


def test_views_stay_in_their_bounds_and_depend_on_the_seed_alone() -> None:
    views = draw_views([4, 7], 300, seed=3)
    assert views.subjects.bincount().tolist() == [0, 0, 0, 0, 300, 0, 0, 300]
    assert views.scales.min() >= MIN_SCALE
    assert views.scales.max() <= 1.0
    # A shrunk subject has room to move: at most a tenth of half the side goes over the edge.
    assert (views.shifts.abs().amax(1) + views.scales).max() <= 1.1 + 1e-6
    assert 0.4 < views.mirrored.float().mean() < 0.6
    assert views.backgrounds.unique().tolist() == list(range(len(BACKGROUNDS)))
    again, other = draw_views([4, 7], 300, seed=3), draw_views([4, 7], 300, seed=4)
    assert torch.equal(views.shifts, again.shifts)
    assert not torch.equal(views.shifts, other.shifts)


def test_a_view_shows_its_subject_mirrored_moved_and_on_its_background(pictures: torch.Tensor) -> None:
    views = Views(
        subjects=torch.tensor([1, 1, 0]),
        backgrounds=torch.tensor([3, 3, 7]),
        scales=torch.tensor([1.0, 1.0, 0.5]),
        shifts=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.5, -0.5]]),
        mirrored=torch.tensor([False, True, False]),
    )
    shown = views.show(pictures)
    plain = compose(pictures[1:], unit_rgb(BACKGROUNDS[3])[None])[0]
    torch.testing.assert_close(shown[0], plain)
    torch.testing.assert_close(shown[1], plain.flip(2))
    # Half its size, in the corner at the top right.
    blue = unit_rgb(BACKGROUNDS[7])
    torch.testing.assert_close(shown[2, :, 17:, :], blue[:, None, None].expand(3, 15, 32))
    assert (shown[2, :, 2:14, 18:30] - blue[:, None, None]).abs().sum(0).min() > 0.0
    torch.testing.assert_close(views[torch.tensor([2])].show(pictures)[0], shown[2])


def test_the_cache_encodes_its_views_once_and_leaves_the_held_out_subjects_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_workers(target: Callable[..., None], workers: int, *arguments: Any) -> None:
        for rank in range(workers):
            target(rank, *arguments)

    class Pixels:
        """An autoencoder whose latents are the picture's middle."""

        config = SimpleNamespace(scaling_factor=2.0)

        def encode(self, pictures: torch.Tensor) -> SimpleNamespace:
            latents = pictures[:, :1, 8:24, 8:24].expand(-1, 4, -1, -1)
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def tokenize(_: object, captions: list[str]) -> torch.Tensor:
        return torch.tensor([[len(caption)] for caption in captions])

    def encode_text(tokens: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=tokens[:, :, None].float())

    monkeypatch.setattr(module, "run_workers", run_workers)
    monkeypatch.setattr(module, "tokenize", tokenize)
    monkeypatch.setattr(module, "HELD_OUT_SUBJECTS", 2)
    subjects = [Subject(name, (name,), (name,)) for name in ("ant", "bee", "cat", "dog")]
    pictures = torch.randint(256, (4, 4, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pipeline: Any = SimpleNamespace(vae=Pixels(), tokenizer=None, text_encoder=encode_text)
    path = tmp_path / "views.pt"
    cache = build_view_cache(pipeline, subjects, pictures, Captioner(0), path, workers=2)
    assert cache.views.subjects.unique().tolist() == [1, 3]
    assert len(cache.views) == len(cache.latents) == len(cache.states) == 2 * VIEWS_OF_A_SUBJECT
    picks = torch.tensor([0, 40])
    expected = 2.0 * cache.views[picks].show(pictures)[:, :1, 8:24, 8:24].expand(-1, 4, -1, -1)
    torch.testing.assert_close(cache.latents[picks].float(), expected, atol=2e-3, rtol=0.0)
    assert cache.empty.tolist() == [[[0.0]]]
    assert cache.states.min() > 0.0
    written = path.stat().st_mtime_ns
    again = build_view_cache(pipeline, subjects, pictures, Captioner(0), path, workers=2)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.latents, cache.latents)
