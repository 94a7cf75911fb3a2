"""Making a request ready for its first step: LoRAs, prompts to states, seeds and pictures to latents, controls."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from triton_diffusers.adapters.lora import LoraLoader, LoraSet
from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.engines import Engine
from triton_diffusers.inflight.canvas import Canvas
from triton_diffusers.inflight.conditioning import Conditioning
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.control_images import ControlMaker
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.inflight.guidance import embed_guidance, unused_guidance
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.inflight.lora_tags import LoraTags
from triton_diffusers.inflight.rounding import rounding_warnings
from triton_diffusers.inflight.sizes import DrawnSizes
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.sampling.profiles import Profile
from triton_diffusers.sampling.schedulers import SchedulerFactory, takes_generator
from triton_diffusers.settings import Settings


class Admission:
    """Prepares jobs for one engine."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._schedulers = SchedulerFactory(engine.scheduler_config)
        self._tags = LoraTags(settings)
        self._loras = LoraLoader(settings, engine.lora_targets)
        self._text = PromptEncoder(engine, settings)
        self._controls = ControlMaker(settings)
        file = DrawingFile.read(settings.model_folder)
        self.defaults: ModelDefaults = file.defaults(engine.native_side)
        self._sizes = DrawnSizes(engine, settings, file)

    def on(self, engine: Engine) -> Admission:
        """The same for another engine of the same checkpoint: LoRAs that were read stay, text states do not."""
        other = copy.copy(self)
        other._engine = engine
        other._text = PromptEncoder(engine, self._settings)
        return other

    def prepare(self, job: Job) -> None:
        """Give the job its samples. Raises ``InvalidRequest`` or ``NotFound`` for what only now is found wrong."""
        request = job.request
        loras = self._loras.load(replace(request, loras=self._tags.choices(request, job.warnings)), job.warnings)
        conditioning = self._text.encode(request, loras, job.warnings)
        job.warnings.extend(unused_guidance(self._engine, request))
        if (warning := self._schedulers.warning(request.scheduler)) is not None:
            job.warnings.append(warning)
        size = self._sizes.drawn(request)
        job.drawn_size = size if self._sizes.is_enlarged(request) else None
        canvas = Canvas(self._engine, request, job.pictures, size, job.warnings)
        controls = self._controls.make(job, size)
        if controls and request.profile.period > 1:
            job.warnings.append(f"profile {request.profile.name}: with a ControlNet every step runs the whole UNet")
        profile = request.profile
        if conditioning.composed and profile.guided < 1:
            job.warnings.append(f"profile {profile.name}: with AND every step has guidance")
            profile = replace(profile, guided=1.0)
        job.samples = [
            self._sample(request, index, canvas, conditioning, loras, controls, profile)
            for index in range(request.image_num)
        ]
        if not request.unchanged:
            job.warnings.extend(self._sizes.warnings(request))
        job.warnings.extend(rounding_warnings(request, job.samples[0]))

    def _sample(
        self,
        request: GenerationRequest,
        index: int,
        canvas: Canvas,
        conditioning: Conditioning,
        loras: LoraSet | None,
        controls: tuple[Control, ...],
        profile: Profile,
    ) -> Sample:
        scheduler = self._schedulers.make(request.scheduler, request.steps)
        generator = torch.Generator().manual_seed(request.seed_of(index))
        beginning = canvas.begin(scheduler, generator)
        return Sample(
            index=index,
            scheduler=scheduler,
            step_options={"generator": generator} if takes_generator(scheduler) else {},
            latents=beginning.latents,
            conditioning=conditioning,
            guidance_scale=request.guidance_scale,
            guidance=embed_guidance(self._engine, request),
            first=beginning.position,
            position=beginning.position,
            known=beginning.known,
            condition=beginning.condition,
            loras=loras,
            controls=controls,
            profile=profile,
        )
