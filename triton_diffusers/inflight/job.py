"""State of one request in the engine."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.api.request import GenerationRequest, GenerationResult
from triton_diffusers.families.conditioning import Conditioning, Inputs
from triton_diffusers.images.budget import Share
from triton_diffusers.images.inputs import SourceImages
from triton_diffusers.inflight.canvas import InpaintContext
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.controlnet_cache import ControlNetLease
from triton_diffusers.jobs.board import BoardEntry
from triton_diffusers.sampling.profiles import EXACT, Profile
from triton_diffusers.sampling.schedulers import move_scheduler

_CONTROLNET_WORK = 0.5  # relative to the denoiser; a ControlNet is about its first half


class JobState(StrEnum):
    """Lifecycle state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True if the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(slots=True, kw_only=True, eq=False)
class Sample:
    """One image of a job: the complete input of its next step, not shared with other images.

    ``latents`` is float32 (channels, h, w), on the engine's device. ``position`` indexes the next step in the
    scheduler's timesteps, ``first`` the first one. ``expected`` is the schedule's estimate of the final latents, set by
    the first step. ``deep`` are cached features (rows, d, h, w) for the next step; None if it runs the whole denoiser.
    """

    index: int
    scheduler: Any
    step_options: dict[str, Any]
    latents: torch.Tensor
    conditioning: Conditioning
    guidance_scale: float
    first: int = 0
    position: int
    inpaint: InpaintContext | None = None
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
        """Denoiser calls in total; second-order schedulers need more than the request's steps."""
        return len(self.scheduler.timesteps) - self.first

    @property
    def steps_done(self) -> int:
        """Denoiser calls made so far."""
        return self.position - self.first

    @property
    def timestep(self) -> torch.Tensor:
        """Timestep of the next step."""
        timestep: torch.Tensor = self.scheduler.timesteps[self.position]
        return timestep

    @property
    def rows(self) -> int:
        """Rows of the next denoiser call: all of the conditioning's with guidance, else 1."""
        return self.conditioning.rows if self.profile.is_guided(self.steps_done, self.steps) else 1

    @property
    def inputs(self) -> Inputs:
        """Inputs of the next denoiser call besides latents and timesteps, with one row each."""
        return self.conditioning.at(self._sampling_step, self.rows)

    @property
    def _sampling_step(self) -> int:
        """Index of the next of the request's steps, which may take several denoiser calls each."""
        return self.steps_done * len(self.conditioning.steps) // len(self.scheduler.timesteps)

    @property
    def _text_changes(self) -> bool:
        """True if the next call uses other texts than the previous one."""
        before = (self.steps_done - 1) * len(self.conditioning.steps) // len(self.scheduler.timesteps)
        return before < self._sampling_step and self.conditioning.changes(self._sampling_step)

    @property
    def active_controls(self) -> tuple[Control, ...]:
        """Controls of the next step."""
        return tuple(control for control in self.controls if control.is_active(self.steps_done, self.steps))

    @property
    def work(self) -> float:
        """Estimated relative cost of the next step (used for fair scheduling)."""
        return self.rows * (1 + _CONTROLNET_WORK * len(self.active_controls))

    @property
    def next_is_whole(self) -> bool:
        """True if the next step runs the whole denoiser: deep features depend on the texts and exclude ControlNets."""
        return bool(self.controls) or self.profile.is_whole(self.steps_done, self.steps) or self._text_changes

    @property
    def denoised(self) -> bool:
        """True if all steps are done."""
        return self.steps_done >= self.steps

    @property
    def decoded(self) -> bool:
        """True if the image is decoded."""
        return self.pixels is not None

    def move(self, device: torch.device) -> None:
        """Move the sample's tensors to an engine's device."""
        if self.latents.device == device:
            return
        self.latents = self.latents.to(device)
        self.condition, self.deep, self.expected = (
            None if tensor is None else tensor.to(device) for tensor in (self.condition, self.deep, self.expected)
        )
        self.inpaint = None if self.inpaint is None else self.inpaint.to(device)
        move_scheduler(self.scheduler, device)

    @property
    def batch_key(self) -> tuple[torch.Size, int, bool]:
        """Key of samples that can share a denoiser call."""
        return self.latents.shape, self.conditioning.chunks(self._sampling_step), self.deep is not None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """The process that holds a request. ``job_id`` is unique, ``arrived`` in seconds since the epoch.

    ``on_start`` is called when work on the job begins, which may be twice: on its images, and in the engine's thread.
    ``on_end`` is called once, in any thread, when the job has ended.
    """

    model: str
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    pid: int = field(default_factory=os.getpid)
    arrived: float = field(default_factory=time.time)
    on_start: Callable[[], None] = lambda: None
    on_end: Callable[[Job], None] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One request in the engine. Only the engine's thread modifies it; any thread may call ``cancel``."""

    number: int
    origin: Origin
    request: GenerationRequest
    # Set by the input loader: the fitted input images and the leased ControlNets. ``gathered`` is True once both are
    # complete, ``fetching`` while links are pending.
    sources: SourceImages | None = None
    controlnets: ControlNetLease | None = None
    # Shares of the memory for all requests' images; closed at the end.
    memory: list[Share] = field(default_factory=list)
    # Makes the input loader see that the job has ended while it waits for memory.
    interrupt: Callable[[], None] | None = None
    gathered: bool = False
    fetching: bool = False
    state: JobState = JobState.QUEUED
    samples: list[Sample] = field(default_factory=list)
    # uint8 (height, width, 3), one per ControlNet.
    control_images: list[np.ndarray[Any, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Width and height before enlargement; None without.
    drawn_size: tuple[int, int] | None = None
    # True if a compiled engine ran the latest step.
    optimized: bool = False
    result: GenerationResult | None = None
    error: Exception | None = None
    notice: str = ""  # reason of the current wait
    started: float | None = None
    ended: float | None = None
    # Compute seconds charged to this job (used for fair scheduling).
    cost_seconds: float = 0.0
    # Monotonic time of the last progress report.
    posted: float = 0.0
    _cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def model(self) -> str:
        """Name of the model that took the request."""
        return self.origin.model

    @property
    def arrived(self) -> float:
        """Time of arrival, in seconds since the epoch."""
        return self.origin.arrived

    def cancel(self) -> None:
        """Request cancellation at the next step."""
        self._cancel.set()

    @property
    def cancel_requested(self) -> bool:
        """True if cancellation was requested."""
        return self._cancel.is_set()

    @property
    def timed_out(self) -> bool:
        """True if the request's timeout has expired."""
        return 0 < self.request.timeout_seconds < time.time() - self.arrived

    @property
    def controlnet_paths(self) -> list[str]:
        """Paths of the request's ControlNets."""
        return [choice.path for choice in self.request.controls]

    @property
    def has_deep(self) -> bool:
        """True if the next step of any image uses deep features."""
        return any(sample.deep is not None for sample in self.samples)

    @property
    def decoded(self) -> bool:
        """True if all images are decoded."""
        return bool(self.samples) and all(sample.decoded for sample in self.samples)

    @property
    def queue_seconds(self) -> float:
        """Seconds from arrival to admission, or to the end or now if it was not admitted."""
        return (self.started or self.ended or time.time()) - self.arrived

    @property
    def run_seconds(self) -> float:
        """Seconds from admission to the end or now; 0 if it was not admitted."""
        return (self.ended or time.time()) - self.started if self.started is not None else 0.0

    def release_resources(self) -> None:
        """Free the inputs of an ended job."""
        self.sources = None
        for share in self.memory:
            share.close()
        if self.controlnets is not None:
            self.controlnets.release()
        if (interrupt := self.interrupt) is not None:
            interrupt()

    def board_entry(self) -> BoardEntry:
        """Return the job as shown on the board."""
        done = self.state is JobState.SUCCEEDED
        images_done = self.request.image_num if done else sum(sample.decoded for sample in self.samples)
        return BoardEntry(
            model=self.model,
            job_id=self.origin.job_id,
            pid=self.origin.pid,
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
