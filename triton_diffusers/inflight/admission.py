"""Making a request ready for its first step: LoRAs, prompts to states, seeds and pictures to latents, controls."""

from __future__ import annotations

import copy

import torch

from triton_diffusers.engines import Engine
from triton_diffusers.inflight.canvas import Canvas, sampled_size
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.controls import ControlMaker
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.lora import LoraLoader, LoraSet
from triton_diffusers.request import GenerationRequest
from triton_diffusers.schedulers import SchedulerFactory, takes_generator
from triton_diffusers.settings import Settings


class Admission:
    """Prepares jobs for one engine."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._schedulers = SchedulerFactory(engine.scheduler_config)
        self._loras = LoraLoader(settings, engine.lora_targets)
        self._text = PromptEncoder(engine, settings.max_prompt_chunks)
        self._controls = ControlMaker(settings)

    def on(self, engine: Engine) -> Admission:
        """The same for another engine of the same checkpoint: LoRAs that were read stay, text states do not."""
        other = copy.copy(self)
        other._engine = engine
        other._text = PromptEncoder(engine, self._settings.max_prompt_chunks)
        return other

    def prepare(self, job: Job) -> None:
        """Give the job its samples. Raises ``InvalidRequest`` or ``NotFound`` for what only now is found wrong."""
        request = job.request
        loras = self._loras.load(request)
        states = self._text.states(request, loras, job.warnings)
        canvas = Canvas(self._engine, request, job.pictures)
        controls = self._controls.make(job, sampled_size(self._engine, request))
        if controls and request.profile.period > 1:
            job.warnings.append(f"profile {request.profile.name}: with a ControlNet every step runs the whole UNet")
        job.samples = [
            self._sample(request, index, canvas, states, loras, controls) for index in range(request.image_num)
        ]

    def _sample(
        self,
        request: GenerationRequest,
        index: int,
        canvas: Canvas,
        states: torch.Tensor,
        loras: LoraSet | None,
        controls: tuple[Control, ...],
    ) -> Sample:
        scheduler = self._schedulers.make(request.scheduler, request.steps)
        generator = torch.Generator().manual_seed(request.seed_of(index))
        beginning = canvas.begin(scheduler, generator)
        return Sample(
            index=index,
            scheduler=scheduler,
            step_options={"generator": generator} if takes_generator(scheduler) else {},
            latents=beginning.latents,
            states=states,
            guidance_scale=request.guidance_scale,
            first=beginning.position,
            position=beginning.position,
            known=beginning.known,
            condition=beginning.condition,
            loras=loras,
            controls=controls,
            profile=request.profile,
        )
