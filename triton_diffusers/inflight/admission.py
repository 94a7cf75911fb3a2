"""Making a request ready for its first step: prompts to text states, seeds to latents."""

from __future__ import annotations

from collections import OrderedDict

import torch
from diffusers.utils.torch_utils import randn_tensor

from triton_diffusers.engines import Engine
from triton_diffusers.inflight.job import Job, Sample
from triton_diffusers.prompts import Tokens, tokenize
from triton_diffusers.request import GenerationRequest
from triton_diffusers.schedulers import SchedulerFactory, takes_generator

_SEEDS = 2**64
# Width and height that every VAE and UNet of the family takes without a remainder.
_SMALLEST_MULTIPLE = 8


class Admission:
    """Prepares jobs for one engine."""

    _MOST_CACHED_PROMPTS = 256

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._schedulers = SchedulerFactory(engine.scheduler_config)
        self._states: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    def prepare(self, job: Job) -> None:
        """Give the job its samples. Raises ``InvalidRequest`` for what only the model can find wrong."""
        request = job.request
        fields = {"prompt": request.prompt}
        if request.guided:
            fields = {"negative_prompt": request.negative_prompt, **fields}
        tokens = {field: tokenize(self._engine.tokenizer, text) for field, text in fields.items()}
        job.warnings.extend(warning for field, cut in tokens.items() if (warning := cut.warning(field)))
        states = torch.cat([self._encode(prompt) for prompt in tokens.values()])
        job.samples = [self._sample(request, index, states) for index in range(request.image_num)]

    def _sample(self, request: GenerationRequest, index: int, states: torch.Tensor) -> Sample:
        scheduler = self._schedulers.make(request.scheduler, request.steps)
        generator = torch.Generator().manual_seed((request.seed + index) % _SEEDS)
        noise: torch.Tensor = randn_tensor((1, *self._latent_shape(request)), generator=generator, dtype=torch.float32)
        return Sample(
            index=index,
            scheduler=scheduler,
            generator=generator,
            step_options={"generator": generator} if takes_generator(scheduler) else {},
            latents=noise[0] * scheduler.init_noise_sigma,
            states=states,
            guidance_scale=request.guidance_scale,
        )

    def _latent_shape(self, request: GenerationRequest) -> tuple[int, int, int]:
        per_latent = self._engine.pixels_per_latent
        multiple = max(per_latent, _SMALLEST_MULTIPLE)
        height, width = (-(-side // multiple) * multiple // per_latent for side in (request.height, request.width))
        return self._engine.latent_channels, height, width

    def _encode(self, prompt: Tokens) -> torch.Tensor:
        """Text states (1, tokens, width). Prompts come again (negative ones above all), so they are kept."""
        states = self._states.get(prompt.ids)
        if states is None:
            states = self._states[prompt.ids] = self._engine.encode_prompts([prompt])
            if len(self._states) > self._MOST_CACHED_PROMPTS:
                self._states.popitem(last=False)
        self._states.move_to_end(prompt.ids)
        return states
