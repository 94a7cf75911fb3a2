"""The state of one request on its way through the engine."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.api.request import GenerationRequest, GenerationResult
from triton_diffusers.images.budget import Share
from triton_diffusers.images.inputs import SourcePictures
from triton_diffusers.inflight.canvas import Known
from triton_diffusers.inflight.conditioning import Conditioning
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.controlnets import Held
from triton_diffusers.jobs.board import BoardEntry
from triton_diffusers.sampling.profiles import EXACT, Profile

_CONTROLNET_WORK = 0.5  # of a UNet's: a ControlNet is the first half of one


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(slots=True, kw_only=True, eq=False)
class Sample:
    """One image of a job: everything that its next step needs, shared with no other image.

    ``latents`` is float32 of shape (channels, h, w). ``guidance`` (1, width) is the embedding of the guidance scale,
    for a UNet that takes one; such a sample has one row. ``position`` is the next step's place in the scheduler's
    timesteps, ``first`` that of the first step. ``expected`` is what the scheduler takes the final latents to be, once
    it has stepped. ``deep`` are the features (rows, d, h, w) that the next step takes over from an earlier one; none if
    it runs the whole UNet.
    """

    index: int
    scheduler: Any
    step_options: dict[str, Any]
    latents: torch.Tensor
    conditioning: Conditioning
    guidance_scale: float
    guidance: torch.Tensor | None = None
    first: int = 0
    position: int
    known: Known | None = None
    condition: torch.Tensor | None = None
    loras: LoraSet | None = None
    controls: tuple[Control, ...] = ()
    profile: Profile = EXACT
    deep: torch.Tensor | None = None
    expected: torch.Tensor | None = None
    pixels: np.ndarray[Any, Any] | None = None
    flagged: bool = False

    @property
    def steps(self) -> int:
        """UNet calls that the scheduler wants (second-order ones want more than the request's steps)."""
        return len(self.scheduler.timesteps) - self.first

    @property
    def steps_done(self) -> int:
        """Steps that have been made."""
        return self.position - self.first

    @property
    def timestep(self) -> torch.Tensor:
        """The timestep of the next step."""
        timestep: torch.Tensor = self.scheduler.timesteps[self.position]
        return timestep

    @property
    def rows(self) -> int:
        """Rows of the next step's UNet call: with guidance all of the conditioning's, else 1, the prompt's."""
        return self.conditioning.rows if self.profile.is_guided(self.steps_done, self.steps) else 1

    @property
    def states(self) -> torch.Tensor:
        """Text states (rows, tokens, width) of the next step's UNet call."""
        return self.conditioning.at(self._sampling_step, self.rows)

    @property
    def _sampling_step(self) -> int:
        """The next of the request's steps, from 0: a scheduler may want more than one UNet call for each."""
        return self.steps_done * len(self.conditioning.steps) // len(self.scheduler.timesteps)

    @property
    def _text_changes(self) -> bool:
        """True if the next call has other texts than the one before."""
        before = (self.steps_done - 1) * len(self.conditioning.steps) // len(self.scheduler.timesteps)
        return before < self._sampling_step and self.conditioning.changes(self._sampling_step)

    @property
    def active_controls(self) -> tuple[Control, ...]:
        """Those that control the next step."""
        return tuple(control for control in self.controls if control.is_active(self.steps_done, self.steps))

    @property
    def work(self) -> float:
        """What the next step costs beside those of others, as far as can be told: fairness goes by it."""
        return self.rows * (1 + _CONTROLNET_WORK * len(self.active_controls))

    @property
    def next_is_whole(self) -> bool:
        """True if the next step runs the whole UNet: deep features know nothing of ControlNets and other texts."""
        return bool(self.controls) or self.profile.is_whole(self.steps_done, self.steps) or self._text_changes

    @property
    def denoised(self) -> bool:
        """Whether all steps are done."""
        return self.steps_done >= self.steps

    @property
    def decoded(self) -> bool:
        """Whether it is a picture."""
        return self.pixels is not None

    @property
    def batch_key(self) -> tuple[torch.Size, int, bool]:
        """Samples of one key can share a UNet call."""
        return self.latents.shape, self.conditioning.chunks(self._sampling_step), self.deep is not None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request in the engine. Only the engine's thread changes it; ``cancel`` may be called by anyone."""

    number: int
    model: str
    request: GenerationRequest
    # The request's pictures, once they are fetched and fitted, and its ControlNets, once they are loaded; `gathered`
    # says that there is nothing to wait for; ``fetching`` that links are not fetched yet.
    pictures: SourcePictures | None = None
    controlnets: Held | None = None
    # What its images use of the memory for all requests; closed when it ends.
    memory: list[Share] = field(default_factory=list)
    gathered: bool = False
    fetching: bool = False
    state: JobState = JobState.QUEUED
    samples: list[Sample] = field(default_factory=list)
    # What the ControlNets look at, uint8 (height, width, 3), one for each.
    control_pictures: list[np.ndarray[Any, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Width and height at which images are drawn that are enlarged afterwards.
    drawn_size: tuple[int, int] | None = None
    # Whether a compiled engine has made the latest step.
    optimized: bool = False
    result: GenerationResult | None = None
    error: Exception | None = None
    notice: str = ""  # what it waits for
    arrived: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    # Compute seconds charged to this job; what fairness between requests goes by.
    cost_seconds: float = 0.0
    # Monotonic time of the last report, which progress reports are spaced by.
    posted: float = 0.0
    _cancel: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask for an end at the next step."""
        self._cancel.set()

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for an end."""
        return self._cancel.is_set()

    @property
    def timed_out(self) -> bool:
        """True if the time that the request allows is over."""
        return 0 < self.request.timeout_seconds < time.time() - self.arrived

    @property
    def controlnet_paths(self) -> list[str]:
        """The ControlNets that the request names."""
        return [choice.path for choice in self.request.controls]

    @property
    def has_deep(self) -> bool:
        """Whether the next step of some image takes deep features over."""
        return any(sample.deep is not None for sample in self.samples)

    @property
    def decoded(self) -> bool:
        """Whether all images are pictures."""
        return bool(self.samples) and all(sample.decoded for sample in self.samples)

    @property
    def queue_seconds(self) -> float:
        """Time from arrival to admission (or to now, or to its end)."""
        return (self.started or self.ended or time.time()) - self.arrived

    @property
    def run_seconds(self) -> float:
        """Time from admission to the end (or to now); 0 if it never ran."""
        return (self.ended or time.time()) - self.started if self.started is not None else 0.0

    def board_entry(self) -> BoardEntry:
        """The job as others see it."""
        done = self.state is JobState.SUCCEEDED
        images_done = self.request.image_num if done else sum(sample.decoded for sample in self.samples)
        return BoardEntry(
            model=self.model,
            number=self.number,
            task_id=self.request.task_id,
            state=self.state.value,
            step=sum(sample.steps_done for sample in self.samples),
            steps=sum(sample.steps for sample in self.samples),
            image_num=self.request.image_num,
            images_done=images_done,
            arrived=self.arrived,
            ended=self.ended,
            error_msg=str(self.error or ("" if self.state.ended else self.notice)),
        )
