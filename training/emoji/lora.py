"""LoRAs of the UNet, each of which draws the same subjects in another style.

Captions say nothing of the style: the LoRA alone brings it.
"""

# mypy: allow-untyped-calls

from collections.abc import Callable, Sequence

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from training.emoji.captions import Captioner
from training.emoji.latents import LatentCache
from training.emoji.loop import Recipe, training_loop
from training.emoji.lora_export import Layers
from training.emoji.lora_styles import ALPHA
from training.emoji.norm import speed_up_group_norms
from training.emoji.parallel import Exchange, Worker
from training.emoji.run import Run
from training.emoji.subjects import Subject
from training.emoji.unet import Objective

RANK = 16
MODULES = r".*\.(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|resnets\.\d+\.conv[12])"
"""Attention, feed-forward and the convolutions of the residual blocks: 1.2 M parameters, 2.4 MB in half precision."""
RECIPE = Recipe(peak_rate=2e-3, warmup=50, log_every=25, checkpoint_every=100)


def add_lora(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """Put a LoRA that changes nothing yet on `unet`, freeze the rest, and return what is to be trained."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MODULES))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def lora_layers(unet: UNet2DConditionModel) -> Layers:
    """Return the LoRA's matrices by PEFT's names, detached copies."""
    return {key: tensor.detach().clone() for key, tensor in get_peft_model_state_dict(unet).items()}


def train_lora(
    run: Run,
    rank: int,
    exchange: Exchange,
    pipeline: StableDiffusionPipeline,
    subjects: Sequence[Subject],
    latents: LatentCache,
    captioner: Captioner,
    iterations: int,
    on_checkpoint: Callable[[Layers, int], None],
) -> Layers:
    """Train as worker `rank` to `iterations`, resuming from the run's checkpoint. Returns the LoRA's matrices.

    Workers are those of `train_unet`; the objective is the UNet's, on the `latents` of the style.
    """
    unet = pipeline.unet
    # Both workers must begin with the same A.
    torch.manual_seed(0)
    parameters = add_lora(unet)
    unet.set_attn_processor(AttnProcessor())
    speed_up_group_norms(unet)
    unet.to(memory_format=torch.channels_last)
    worker = Worker(exchange, rank, parameters)
    optimizer = torch.optim.AdamW(parameters, lr=RECIPE.peak_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    begun = 0
    if state := run.load():
        set_peft_model_state_dict(unet, state["lora"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["step"]
    seed = begun * exchange.workers + rank
    objective = Objective(pipeline.text_encoder, pipeline.tokenizer, subjects, latents, captioner, seed)
    unet.train()
    for step, due in training_loop(run, optimizer, lambda: objective.loss(unet), RECIPE, begun, iterations, worker):
        if due:
            layers = lora_layers(unet)
            run.save({"lora": layers, "optimizer": optimizer.state_dict(), "step": step})
            on_checkpoint(layers, step)
    return lora_layers(unet)
