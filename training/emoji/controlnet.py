"""ControlNets of the UNet: each makes it follow a control picture.

All but the ControlNet is frozen. Gradients flow back through the UNet's upward half only, where the residuals enter.
"""

# mypy: allow-untyped-calls

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from training.emoji.controls import Control
from training.emoji.loop import Recipe, training_loop
from training.emoji.noise import training_schedule, velocity_weights
from training.emoji.norm import speed_up_group_norms
from training.emoji.run import Run
from training.emoji.views import ViewCache

EMBEDDING_WIDTHS = (16, 32, 64, 96)
"""Of the control picture's convolutions; each but the first halves its sides: 128 pixels are a latent of 16."""
BATCH = 8
"""Small: within hours on two cores, many steps teach more than good ones."""
RECIPE = Recipe(peak_rate=1e-3, warmup=50, log_every=25, checkpoint_every=100)
EMPTY_SHARE = 0.3
"""So many captions are empty: what to draw is then in the control picture alone."""
EMBEDDED_SPREAD = 0.3
"""Standard deviation of the embedded control picture at the start, half of that of the embedded latents."""


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Return a ControlNet (6.3 M parameters) that changes nothing yet: a copy of the UNet's downward half."""
    return ControlNetModel.from_unet(
        unet, conditioning_channels=3, conditioning_embedding_out_channels=EMBEDDING_WIDTHS
    )


@torch.no_grad()
def wake_embedding(controlnet: ControlNetModel, painted: torch.Tensor) -> None:
    """Draw the embedding's weights again, so that control pictures like `painted` [N, 3, S, S] count from the start.

    As diffusers draws them, its end is zero, and a few thin lines fade to a hundredth on the way there: learning would
    take far longer to begin. What the ControlNet does to the UNet stays nothing, by the zeros at its other end.
    """
    embedding = controlnet.controlnet_cond_embedding
    for module in embedding.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    embedding.conv_out.weight.mul_(EMBEDDED_SPREAD / embedding(painted).std())


class ControlObjective:
    """Objective of a ControlNet: the velocity of the view's latents, given the control image.

    pictures: all subjects', uint8 [subjects, 4, S, S]. Batches are those of `seed`.
    """

    def __init__(self, cache: ViewCache, pictures: torch.Tensor, control: Control, seed: int) -> None:
        self.cache = cache
        self.pictures = pictures
        self.control = control
        self.schedule = training_schedule()
        self.generator = torch.Generator().manual_seed(seed)

    def loss(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> torch.Tensor:
        """Return the weighted error on the next batch."""
        generator, cache = self.generator, self.cache
        alphas_cumprod = self.schedule.alphas_cumprod
        picks = torch.randint(len(cache.views), (BATCH,), generator=generator)
        # Mostly noisy ones: there it is decided what goes where.
        noisiness = 1.0 - torch.rand(BATCH, generator=generator).square()
        timesteps = (noisiness * len(alphas_cumprod)).long().clamp(max=len(alphas_cumprod) - 1)
        clean = cache.latents[picks].float()
        empty = torch.rand(BATCH, generator=generator) < EMPTY_SHARE
        states = torch.where(empty[:, None, None], cache.empty, cache.states[picks]).float()
        noise = torch.randn(clean.shape, generator=generator)
        noisy = self.schedule.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
        target = self.schedule.get_velocity(clean, noise, timesteps)
        painted = self.control.paint(cache.views[picks].show(self.pictures))
        painted = painted.contiguous(memory_format=torch.channels_last)
        down, middle = controlnet(noisy, timesteps, states, painted, return_dict=False)
        prediction = unet(
            noisy, timesteps, states, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        errors = (prediction - target).square().flatten(1).mean(1)
        loss: torch.Tensor = (errors * velocity_weights(alphas_cumprod, timesteps)).mean()
        return loss


def train_controlnet(
    run: Run,
    unet: UNet2DConditionModel,
    cache: ViewCache,
    pictures: torch.Tensor,
    control: Control,
    on_checkpoint: Callable[[ControlNetModel, int], None],
) -> ControlNetModel:
    """Train to the control's iterations, resuming from the run's checkpoint. Freezes `unet`. Returns the ControlNet.

    In one process: two ControlNets that train at once, a thread each, need no meeting of workers.
    """
    unet.requires_grad_(False)
    torch.manual_seed(0)
    controlnet = build_controlnet(unet)
    wake_embedding(controlnet, control.paint(cache.views[: 4 * BATCH].show(pictures)))
    for network in (unet, controlnet):
        network.set_attn_processor(AttnProcessor())
        speed_up_group_norms(network)
        network.to(memory_format=torch.channels_last)
    parameters = list(controlnet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RECIPE.peak_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    begun = 0
    if state := run.load():
        controlnet.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["step"]
    objective = ControlObjective(cache, pictures, control, seed=begun)
    controlnet.train()

    def loss() -> torch.Tensor:
        return objective.loss(unet, controlnet)

    for step, due in training_loop(run, optimizer, loss, RECIPE, begun, control.iterations):
        if due:
            run.save({"model": controlnet.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
            on_checkpoint(controlnet, step)
    return controlnet


def write_controlnet(folder: Path, controlnet: ControlNetModel) -> None:
    """Write `folder` in diffusers' layout, fp16 safetensors, replacing what is there in one step."""
    part, old = (folder.with_name(folder.name + suffix) for suffix in (".part", ".old"))
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    copy.deepcopy(controlnet).half().to(memory_format=torch.contiguous_format).save_pretrained(part)
    for weights in part.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors writes files that only their owner may read
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
