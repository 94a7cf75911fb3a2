"""Views of the subjects for the ControlNets: anywhere in the picture, at any size, on any background, mirrored or not.

A picture that says where things are is of use only where the prompt alone does not.
"""

# mypy: allow-untyped-calls

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from training.emoji.backgrounds import BACKGROUNDS, unit_rgb
from training.emoji.captions import Captioner
from training.emoji.parallel import run_workers
from training.emoji.pictures import compose
from training.emoji.subjects import Subject
from training.emoji.text_encoder import tokenize

MIN_SCALE = 0.55
OVERHANG = 0.1
"""How far a subject's own margin may leave the picture, as a fraction of half the side."""
HELD_OUT_SUBJECTS = 50
VIEWS_OF_A_SUBJECT = 24
ENCODED_AT_ONCE = 32


def held_out(subjects: int) -> list[int]:
    """Return the indices of the subjects that no ControlNet sees in training, spread over the list."""
    return [int(number * subjects / HELD_OUT_SUBJECTS) for number in range(HELD_OUT_SUBJECTS)]


@dataclass(frozen=True)
class Views:
    """A view an entry: indices of subject and background [N], scale [N], shift [N, 2] as in `compose`, mirrored [N]."""

    subjects: torch.Tensor
    backgrounds: torch.Tensor
    scales: torch.Tensor
    shifts: torch.Tensor
    mirrored: torch.Tensor

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, picks: torch.Tensor | slice) -> "Views":
        return Views(
            self.subjects[picks], self.backgrounds[picks], self.scales[picks], self.shifts[picks], self.mirrored[picks]
        )

    def show(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the views as images [N, 3, S, S] in -1..1; `pictures` are all subjects', uint8 [subjects, 4, S, S]."""
        seen = pictures[self.subjects]
        seen = torch.where(self.mirrored[:, None, None, None], seen.flip(3), seen)
        colours = torch.stack([unit_rgb(background) for background in BACKGROUNDS])[self.backgrounds]
        return compose(seen, colours, self.scales, self.shifts)


def draw_views(subjects: Sequence[int], each: int, seed: int) -> Views:
    """`each` random views of every one of `subjects`."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.tensor(subjects).repeat_interleave(each)
    count = len(which)
    scales = MIN_SCALE + (1.0 - MIN_SCALE) * torch.rand(count, generator=generator)
    room = 1.0 + OVERHANG - scales
    return Views(
        subjects=which,
        backgrounds=torch.randint(len(BACKGROUNDS), (count,), generator=generator),
        scales=scales,
        shifts=room[:, None] * (2.0 * torch.rand(count, 2, generator=generator) - 1.0),
        mirrored=torch.rand(count, generator=generator) < 0.5,
    )


@dataclass(frozen=True)
class ViewCache:
    """Views with what the UNet takes: scaled latents [N, 4, 16, 16] and a caption's states [N, tokens, width].

    Both in half precision; `empty` [1, tokens, width] are the states of the empty caption.
    """

    views: Views
    latents: torch.Tensor
    states: torch.Tensor
    empty: torch.Tensor


def build_view_cache(
    pipeline: StableDiffusionPipeline,
    subjects: Sequence[Subject],
    pictures: torch.Tensor,
    captioner: Captioner,
    path: Path,
    workers: int,
) -> ViewCache:
    """Return encoded views of all subjects not held out, made by `workers` processes or read from `path`."""
    hidden = set(held_out(len(subjects)))
    views = draw_views([index for index in range(len(subjects)) if index not in hidden], VIEWS_OF_A_SUBJECT, seed=0)
    if not path.is_file():
        latents = torch.empty(len(views), 4, 16, 16, dtype=torch.float16).share_memory_()
        run_workers(_encode_share, workers, workers, pipeline.vae, pictures, views, latents)
        captions = [
            captioner.caption(subjects[which], BACKGROUNDS[where])
            for which, where in zip(views.subjects.tolist(), views.backgrounds.tolist(), strict=True)
        ]
        state = {"latents": latents.clone(), "states": _states(pipeline, captions), "empty": _states(pipeline, [""])}
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)
    return ViewCache(views, **torch.load(path, weights_only=True, mmap=True))


@torch.no_grad()
def _encode_share(
    rank: int, workers: int, vae: AutoencoderKL, pictures: torch.Tensor, views: Views, latents: torch.Tensor
) -> None:
    """Fill in every `workers`-th part."""
    torch.set_num_threads(1)
    for start in range(rank * ENCODED_AT_ONCE, len(views), workers * ENCODED_AT_ONCE):
        part = slice(start, start + ENCODED_AT_ONCE)
        encoded = vae.encode(views[part].show(pictures)).latent_dist.mode()
        latents[part] = (encoded * vae.config.scaling_factor).half()


@torch.no_grad()
def _states(pipeline: StableDiffusionPipeline, captions: Sequence[str]) -> torch.Tensor:
    parts = [
        pipeline.text_encoder(tokenize(pipeline.tokenizer, captions[start : start + ENCODED_AT_ONCE])).last_hidden_state
        for start in range(0, len(captions), ENCODED_AT_ONCE)
    ]
    return torch.cat(parts).half()
