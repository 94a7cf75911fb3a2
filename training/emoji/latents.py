"""Cached latents of every subject on every background, at a few jitters of scale and place."""

# mypy: allow-untyped-calls

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training.emoji.backgrounds import BACKGROUNDS, WHITE, unit_rgb
from training.emoji.parallel import run_workers
from training.emoji.pictures import compose
from training.emoji.vae import encode

JITTERS: tuple[tuple[float, float, float], ...] = (
    (1.0, 0.0, 0.0),
    (0.94, 0.02, 0.03),
    (0.9, -0.03, -0.02),
    (0.82, 0.17, -0.15),
    (0.8, -0.19, 0.12),
    (0.78, 0.14, 0.21),
    (0.74, -0.23, -0.18),
    (0.7, 0.28, 0.05),
    (0.68, -0.06, 0.3),
    (0.65, -0.3, -0.24),
    (0.72, 0.22, -0.26),
)
"""Scale, and shift to the right and down as a fraction of half the side. No flips or turns: identity counts."""
MILD_JITTERS = 3
"""So many jitters, the first ones, leave the subject where it is; the others put it elsewhere."""
PLAIN_SHARE = 0.8
"""The share of the mild ones that take the first jitter: none."""
MOVED_SHARE = 0.35
"""The share of what may be elsewhere that is."""
WHITE_SHARE = 0.35


def compose_variants(pictures: torch.Tensor, where: torch.Tensor, how: torch.Tensor) -> torch.Tensor:
    """Pictures uint8 [N, 4, S, S] over the backgrounds of index `where` with the jitters of index `how`, both [N]."""
    colours = torch.stack([unit_rgb(background) for background in BACKGROUNDS])[where]
    jitters = torch.tensor(JITTERS)[how]
    return compose(pictures, colours, jitters[:, 0], jitters[:, 1:])


@dataclass(frozen=True)
class LatentCache:
    """Scaled latents (unit variance) [subjects, backgrounds, jitters, 4, 16, 16], half precision."""

    latents: torch.Tensor

    def batch(
        self, count: int, generator: torch.Generator, may_move: torch.Tensor | bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`count` random latents as float [count, 4, 16, 16], with the indices of subject, background and jitter.

        `may_move`, [count], says where the subject may be off the middle.
        """
        subjects, backgrounds, jitters = self.latents.shape[:3]
        which = torch.randint(subjects, (count,), generator=generator)
        where = torch.randint(backgrounds, (count,), generator=generator)
        where[torch.rand(count, generator=generator) < WHITE_SHARE] = BACKGROUNDS.index(WHITE)
        how = torch.randint(MILD_JITTERS, (count,), generator=generator)
        how[torch.rand(count, generator=generator) < PLAIN_SHARE] = 0
        moved = (torch.rand(count, generator=generator) < MOVED_SHARE) & may_move
        how = torch.where(moved, torch.randint(MILD_JITTERS, jitters, (count,), generator=generator), how)
        return self.latents[which, where, how].float(), which, where, how


def measure_scaling_factor(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """1 / standard deviation of the latents of `pictures` (uint8 [N, 4, S, S]) over cycling backgrounds."""
    colours = torch.stack([unit_rgb(BACKGROUNDS[index % len(BACKGROUNDS)]) for index in range(len(pictures))])
    return float(1.0 / encode(vae, compose(pictures, colours)).std())


def build_cache(
    vae: AutoencoderKL, pictures: torch.Tensor, path: Path, workers: int, on_black: torch.Tensor | None = None
) -> LatentCache:
    """Encode all combinations in `workers` processes, or read them from `path` if that exists.

    `on_black` are the pictures for the black background, where others are wanted there.
    """
    if not path.is_file():
        latents = torch.empty(len(pictures), len(BACKGROUNDS), len(JITTERS), 4, 16, 16, dtype=torch.float16)
        by_background = [
            on_black if on_black is not None and background.name == "black" else pictures for background in BACKGROUNDS
        ]
        run_workers(_encode_share, workers, workers, vae, by_background, latents.share_memory_())
        torch.save(latents, path)
    return LatentCache(torch.load(path, weights_only=True))


def _encode_share(
    rank: int, workers: int, vae: AutoencoderKL, by_background: list[torch.Tensor], latents: torch.Tensor
) -> None:
    """Fill in every `workers`-th background."""
    torch.set_num_threads(1)
    for where in range(rank, len(BACKGROUNDS), workers):
        pictures = by_background[where]
        count = len(pictures)
        for how in range(len(JITTERS)):
            images = compose_variants(pictures, torch.full((count,), where), torch.full((count,), how))
            latents[:, where, how] = (encode(vae, images) * vae.config.scaling_factor).half()
