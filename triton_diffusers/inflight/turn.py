"""What the engine does next: one UNet call, or the decoding of one image.

Fairness is between requests, and by compute: the job that has been given least goes first, and its call is shared with
the other jobs whose shapes agree, an equal number of images each; what is left of the call goes to further images of
the same jobs. So a job of four images advances its images in turn while others are in flight, and all at once when it
is alone.

Images that have taken deep features over from a whole step (``Sample.deep``) go before all others. Their steps are
few and cheap; then they need a whole one again, like everybody else, and can share it. So no more images hold features
than a call has.

LoRAs that an engine computes apart from others (a compiled engine leaves some to PyTorch) have calls of their own, each
charged with its time, so that they take no more of it than their share. While others wait, such a call has one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.inflight.job import Job, Sample


@dataclass(frozen=True, slots=True)
class Decode:
    """Make a picture of one denoised sample."""

    job: Job
    sample: Sample


@dataclass(frozen=True, slots=True)
class Step:
    """Advance samples by one UNet call; all have the same batch key."""

    samples: tuple[tuple[Job, Sample], ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs that take part, each once."""
        return tuple(dict.fromkeys(job for job, _ in self.samples))


Turn = Decode | Step


def next_turn(
    jobs: Sequence[Job], max_batch: int, is_apart: Callable[[LoraSet | None], bool] = lambda loras: False
) -> Turn | None:
    """Return the next turn for the jobs that run; None if there is nothing to compute.

    ``max_batch`` bounds the images of a UNet call, and its rows: an image whose prompts are joined by ``AND`` has more
    than two. ``is_apart`` tells the LoRAs that the engine computes apart from others, slowly.
    """
    waiting = sorted((job for job in jobs if not job.decoded), key=lambda job: (not job.has_deep, job.cost_seconds))
    if not waiting:
        return None
    first = waiting[0]
    for sample in first.samples:
        if sample.denoised and not sample.decoded:
            return Decode(first, sample)
    leading = max((sample for sample in first.samples if not sample.denoised), key=_goes_first)
    apart = is_apart(leading.loras)

    def fits(sample: Sample) -> bool:
        return sample.batch_key == leading.batch_key and is_apart(sample.loras) is apart

    candidates = [(job, fitting) for job in waiting if (fitting := _noisy(job, fits))]
    if apart and len(candidates) < len(waiting):
        candidates, max_batch = candidates[:1], 1  # the others wait for it, and no image is drawn sooner for sharing it
    candidates = candidates[:max_batch]
    share = max_batch // len(candidates)
    equal = [(job, sample) for job, fitting in candidates for sample in fitting[:share]]
    further = [(job, sample) for job, fitting in candidates for sample in fitting[share:]]
    chosen = _within([*equal, *further][:max_batch], max_rows(max_batch))
    # A job's images stand together: the rows of one LoRA are one group of the call then.
    return Step(tuple(sorted(chosen, key=lambda chosen: chosen[0].number)))


def max_rows(max_batch: int) -> int:
    """Return the most rows of a UNet call: two for each image, as guidance takes them."""
    return 2 * max_batch


def _within(samples: Sequence[tuple[Job, Sample]], most: int) -> list[tuple[Job, Sample]]:
    """Return the first sample, whatever its rows, and the others for which the call has room."""
    chosen, room = list(samples[:1]), most - samples[0][1].rows
    for job, sample in samples[1:]:
        if sample.rows <= room:
            chosen.append((job, sample))
            room -= sample.rows
    return chosen


def _goes_first(sample: Sample) -> bool:
    return sample.deep is not None


def _noisy(job: Job, fits: Callable[[Sample], bool]) -> list[Sample]:
    return [sample for sample in job.samples if not sample.denoised and fits(sample)]
