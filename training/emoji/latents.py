"""Cached latents of every subject on every background, at a few mild jitters."""

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
)
"""Scale, and shift to the right and down as a fraction of half the side. No flips or turns: identity counts."""
PLAIN_SHARE = 0.8
"""The share of a batch that takes the first jitter: none."""
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
        self, count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """`count` random latents as float [count, 4, 16, 16], with the indices of subject, background and jitter."""
        subjects, backgrounds, jitters = self.latents.shape[:3]
        which = torch.randint(subjects, (count,), generator=generator)
        where = torch.randint(backgrounds, (count,), generator=generator)
        where[torch.rand(count, generator=generator) < WHITE_SHARE] = BACKGROUNDS.index(WHITE)
        how = torch.randint(jitters, (count,), generator=generator)
        how[torch.rand(count, generator=generator) < PLAIN_SHARE] = 0
        return self.latents[which, where, how].float(), which, where, how


def measure_scaling_factor(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """1 / standard deviation of the latents of `pictures` (uint8 [N, 4, S, S]) over cycling backgrounds."""
    colours = torch.stack([unit_rgb(BACKGROUNDS[index % len(BACKGROUNDS)]) for index in range(len(pictures))])
    return float(1.0 / encode(vae, compose(pictures, colours)).std())


def build_cache(vae: AutoencoderKL, pictures: torch.Tensor, path: Path, workers: int) -> LatentCache:
    """Encode all combinations in `workers` processes, or read them from `path` if that exists."""
    if not path.is_file():
        latents = torch.empty(len(pictures), len(BACKGROUNDS), len(JITTERS), 4, 16, 16, dtype=torch.float16)
        run_workers(_encode_share, workers, workers, vae, pictures, latents.share_memory_())
        torch.save(latents, path)
    return LatentCache(torch.load(path, weights_only=True))


def _encode_share(rank: int, workers: int, vae: AutoencoderKL, pictures: torch.Tensor, latents: torch.Tensor) -> None:
    """Fill in every `workers`-th background."""
    torch.set_num_threads(1)
    count = len(pictures)
    for where in range(rank, len(BACKGROUNDS), workers):
        for how in range(len(JITTERS)):
            images = compose_variants(pictures, torch.full((count,), where), torch.full((count,), how))
            latents[:, where, how] = (encode(vae, images) * vae.config.scaling_factor).half()
