"""Workload of the servers: a mix of short and long requests, and their times of arrival."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

GUIDANCE_SCALE = 7.0
# Of this many requests that follow each other in a mix, one is long.
REQUESTS_PER_LONG = 5

_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
_THINGS = ("an apple", "a rocket", "a cat face", "a heart", "a pizza", "a car", "a tree", "a fish", "a star", "a house")


class Kind(StrEnum):
    """The two kinds of requests: a quick draft, and a set of finished pictures."""

    SHORT = "short"
    LONG = "long"

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return {Kind.SHORT: 8, Kind.LONG: 50}[self]

    @property
    def images(self) -> int:
        """Images."""
        return {Kind.SHORT: 1, Kind.LONG: 4}[self]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. ``side`` is the width and the height in pixels."""

    prompt: str
    seed: int
    steps: int
    images: int
    side: int

    @property
    def image_steps(self) -> int:
        """Denoising steps, counted for each image: the work that the request is."""
        return self.steps * self.images


def native_side(model_dir: Path) -> int:
    """Width and height, in pixels, of the pictures that a model is made for."""
    unet, vae = (json.loads((model_dir / "base_model" / part / "config.json").read_text()) for part in ("unet", "vae"))
    return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))


class Asks:
    """Source of requests; one ``seed`` gives the same requests again.

    The first 800 have a prompt each, so that a cache of prompts cannot help.
    """

    def __init__(self, side: int, seed: int) -> None:
        self._side = side
        self._numbers = itertools.count(seed * 1_000_000)
        prompts = [
            f"{thing} and {other} on a {colour} background"
            for colour in _COLOURS
            for thing in _THINGS
            for other in _THINGS
        ]
        random.Random(seed).shuffle(prompts)
        self._prompts = itertools.cycle(prompts)

    def make(self, kind: Kind) -> Ask:
        """Return a request of a kind."""
        return self.make_own(kind.steps, kind.images)

    def make_own(self, steps: int, images: int) -> Ask:
        """Return a request of so many steps and images."""
        return Ask(prompt=next(self._prompts), seed=next(self._numbers), steps=steps, images=images, side=self._side)


def mixed(count: int, seed: int) -> Sequence[Kind]:
    """Return a random order of ``count`` kinds, one in five of them long."""
    long = max(1, round(count / REQUESTS_PER_LONG))
    kinds = [Kind.LONG] * long + [Kind.SHORT] * (count - long)
    random.Random(seed).shuffle(kinds)
    return kinds


def poisson_arrivals(count: int, seconds: float, seed: int) -> Sequence[float]:
    """Arrival times in seconds: a Poisson process of ``seconds``, given that ``count`` arrive in that time."""
    drawn = random.Random(seed)
    return sorted(drawn.uniform(0.0, seconds) for _ in range(count))
