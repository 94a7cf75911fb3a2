"""The UNet and its training on cached latents."""

# mypy: allow-untyped-calls

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.captions import Captioner
from training.emoji.latents import LatentCache
from training.emoji.loop import Recipe, training_loop
from training.emoji.noise import training_schedule, velocity_weights
from training.emoji.parallel import Exchange, Worker
from training.emoji.run import Run
from training.emoji.subjects import Subject
from training.emoji.text_encoder import WIDTH, tokenize

LATENT_SIZE = 16
RECIPE = Recipe(peak_rate=8e-4, warmup=300, log_every=50, checkpoint_every=400)
BATCH = 16
"""Pictures of one worker; with the usual two workers an iteration sees 32."""
EMPTY_SHARE = 0.1
LAYOUT_TIMESTEP = 600
"""Below it the noise lets the layout through, and subjects may be anywhere, as in the input of image to image. Above it
the model decides on the layout, and what it makes from text alone belongs in the middle."""
EMA_DECAY = 0.998


def build_unet() -> UNet2DConditionModel:
    """Return a fresh UNet, 13.6 M parameters. Widths are multiples of 32 and heads 32 wide, which AMX likes."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(96, 160, 224),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        # In diffusers this is the number of heads of each level.
        attention_head_dim=(3, 5, 7),
        cross_attention_dim=WIDTH,
        norm_num_groups=32,
    )


class Ema:
    """An exponential moving average of parameters; the decay rises from 0 to `decay`."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float = EMA_DECAY) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after `step` iterations."""
        decay = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module) -> None:
        """Overwrite the parameters of `model`, one of the same layout."""
        for target, source in zip(model.parameters(), self.average, strict=True):
            target.copy_(source)


class Objective:
    """Objective of the UNet: the velocity of noised latents, given a random caption of their image.

    Batches are those of `seed`. The text encoder is frozen.
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        subjects: Sequence[Subject],
        latents: LatentCache,
        captioner: Captioner,
        seed: int,
    ) -> None:
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.subjects = subjects
        self.latents = latents
        self.captioner = captioner
        self.schedule = training_schedule()
        self.generator = torch.Generator().manual_seed(seed)
        captioner.random.seed(seed)

    def loss(self, unet: Callable[..., Any]) -> torch.Tensor:
        """Return the weighted error of `unet` on the next batch."""
        generator = self.generator
        alphas_cumprod = self.schedule.alphas_cumprod
        timesteps = torch.randint(len(alphas_cumprod), (BATCH,), generator=generator)
        clean, which, where, _ = self.latents.batch(BATCH, generator, timesteps < LAYOUT_TIMESTEP)
        captions = [
            self.captioner.caption(self.subjects[i], BACKGROUNDS[j])
            for i, j in zip(which.tolist(), where.tolist(), strict=True)
        ]
        empty = torch.rand(BATCH, generator=generator) < EMPTY_SHARE
        captions = ["" if drop else caption for caption, drop in zip(captions, empty.tolist(), strict=True)]
        noise = torch.randn(clean.shape, generator=generator)
        noisy = self.schedule.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        target = self.schedule.get_velocity(clean, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                states = self.text_encoder(tokenize(self.tokenizer, captions)).last_hidden_state
            prediction = unet(noisy, timesteps, states).sample.float()
        errors = (prediction - target).square().flatten(1).mean(1)
        loss: torch.Tensor = (errors * velocity_weights(alphas_cumprod, timesteps)).mean()
        return loss


def train_unet(
    run: Run,
    rank: int,
    exchange: Exchange,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    subjects: Sequence[Subject],
    latents: LatentCache,
    captioner: Captioner,
    iterations: int,
    on_checkpoint: Callable[[UNet2DConditionModel, int], None],
) -> UNet2DConditionModel:
    """Train as worker `rank` to `iterations`, resuming from the run's checkpoint. Returns the averaged UNet.

    The workers start with the same weights and average their gradients, so the weights stay the same. Worker 0 logs and
    saves; its `on_checkpoint` gets the averaged UNet and the step at every checkpoint.
    """
    unet.to(memory_format=torch.channels_last)
    # Plain matrix products: on CPU the gradient of the fused attention is several times slower.
    unet.set_attn_processor(AttnProcessor())
    # A fifth faster, after some minutes of compiling the first time.
    compiled = torch.compile(unet)
    averaged = build_unet()
    parameters = list(unet.parameters())
    worker = Worker(exchange, rank, parameters)
    ema = Ema(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=RECIPE.peak_rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    begun = 0
    if state := run.load():
        unet.load_state_dict(state["model"])
        ema.average = state["ema"]
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        begun = state["step"]
    seed = begun * exchange.workers + rank
    objective = Objective(text_encoder, tokenizer, subjects, latents, captioner, seed)
    unet.train()
    for step, due in training_loop(run, optimizer, lambda: objective.loss(compiled), RECIPE, begun, iterations, worker):
        ema.update(step)
        if due:
            state = {"model": unet.state_dict(), "ema": ema.average, "optimizer": optimizer.state_dict(), "step": step}
            run.save(state)
            ema.copy_to(averaged)
            on_checkpoint(averaged, step)
    ema.copy_to(averaged)
    return averaged
