"""Admission of requests: LoRAs, embeddings, initial latents and ControlNets for the first step."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from triton_diffusers.adapters.lora import LoraLoader, LoraSet
from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.engines import Engine
from triton_diffusers.families.conditioning import Conditioning
from triton_diffusers.inflight.canvas import Canvas
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.control_images import ControlBuilder
from triton_diffusers.inflight.drawing_file import DrawingFile
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.inflight.lora_tags import LoraTags
from triton_diffusers.inflight.rounding import rounding_warnings
from triton_diffusers.inflight.sizes import DrawnSizes
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.sampling.profiles import Profile
from triton_diffusers.sampling.schedulers import takes_generator
from triton_diffusers.settings import Settings

# Shorter delays are not noticeable, so cheap jobs are admitted several at a time and share their first step.
_ADMISSION_BUDGET_SECONDS = 0.1


class AdmissionBudget:
    """A limit on admission to about half of the engine's time, so that a burst does not stop running jobs.

    The cost of a job is unknown before its admission. An overrun delays the next admission.
    """

    def __init__(self) -> None:
        self._debt_seconds = 0.0

    def allows(self, running: int) -> bool:
        """Return True if another job may be admitted beside ``running`` ones."""
        if not running:
            self._debt_seconds = 0.0
        return self._debt_seconds < _ADMISSION_BUDGET_SECONDS

    def admitted(self, seconds: float) -> None:
        """Charge an admission."""
        self._debt_seconds += seconds

    def advanced(self, seconds: float) -> None:
        """Credit a turn; unused credit is not saved."""
        self._debt_seconds = max(self._debt_seconds, 0.0) - seconds


class Admission:
    """Preparation of jobs for one engine."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._tags = LoraTags(settings)
        self._loras = LoraLoader(settings, engine.lora_targets)
        self._text = PromptEncoder(engine, settings)
        self._controls = ControlBuilder(settings)
        file = DrawingFile.read(settings.model_folder)
        self.defaults: ModelDefaults = file.defaults(engine.family.defaults)
        self._sizes = DrawnSizes(engine, settings, file)

    def for_engine(self, engine: Engine) -> Admission:
        """Return an admission for another engine of the checkpoint; loaded LoRAs are shared, embeddings are not."""
        other = copy.copy(self)
        other._engine = engine
        other._text = PromptEncoder(engine, self._settings)
        return other

    def prepare(self, job: Job) -> None:
        """Set the job's samples.

        Raises:
            InvalidRequest: a value is invalid for this model.
            NotFound: a LoRA does not exist.
        """
        request = job.request
        loras = self._loras.load(replace(request, loras=self._tags.choices(request, job.warnings)), job.warnings)
        size = self._sizes.drawn(request)
        conditioning = self._text.encode(request, size, loras, job.warnings)
        family = self._engine.family
        job.warnings.extend(family.guidance.warnings(request))
        if (warning := family.schedule.warning(request.scheduler)) is not None:
            job.warnings.append(warning)
        job.drawn_size = size if self._sizes.is_enlarged(request) else None
        canvas = Canvas(self._engine, request, job.sources, size, job.warnings)
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
        scheduler = self._engine.family.schedule.make(request.scheduler, request.steps, canvas.shape)
        generator = torch.Generator().manual_seed(request.seed_of(index))
        initial = canvas.begin(scheduler, generator)
        return Sample(
            index=index,
            scheduler=scheduler,
            step_options={"generator": generator} if takes_generator(scheduler) else {},
            latents=initial.latents,
            conditioning=conditioning,
            guidance_scale=request.guidance_scale,
            first=initial.position,
            position=initial.position,
            inpaint=initial.inpaint,
            condition=initial.condition,
            loras=loras,
            controls=controls,
            profile=profile,
        )
