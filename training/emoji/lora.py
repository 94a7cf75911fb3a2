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
from tqdm import tqdm

from training.emoji.captions import Captioner
from training.emoji.latents import LatentCache
from training.emoji.lora_export import Layers
from training.emoji.lora_styles import ALPHA
from training.emoji.norm import speed_up_group_norms
from training.emoji.parallel import Exchange, Worker
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine
from training.emoji.subjects import Subject
from training.emoji.unet import Objective

RANK = 16
MODULES = r".*\.(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|resnets\.\d+\.conv[12])"
"""Attention, feed-forward and the convolutions of the residual blocks: 1.2 M parameters, 2.4 MB in half precision."""
PEAK_RATE = 2e-3
LOG_EVERY = 25
CHECKPOINT_EVERY = 100


def add_lora(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """Put a LoRA that changes nothing yet on `unet`, freeze the rest, and return what is to be trained."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MODULES))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def lora_layers(unet: UNet2DConditionModel) -> Layers:
    """The LoRA's matrices by PEFT's names, detached copies."""
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
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    step = 0
    if state := run.load():
        set_peft_model_state_dict(unet, state["lora"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    seed = step * exchange.workers + rank
    objective = Objective(pipeline.text_encoder, pipeline.tokenizer, subjects, latents, captioner, seed)
    unet.train()
    running, stop = None, False
    with tqdm(total=iterations, initial=step, desc=run.folder.name, mininterval=10, disable=rank > 0) as bar:
        while step < iterations and not stop:
            rate = warmup_cosine(step, iterations, PEAK_RATE, warmup=50)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = objective.loss(unet)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            value, stop = worker.average(step, loss.item(), run.stopping)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            bar.update()
            running = value if running is None else 0.98 * running + 0.02 * value
            if rank > 0:
                continue
            if step % LOG_EVERY == 0:
                run.log(stage=run.folder.name, step=step, loss=round(running, 5), rate=rate)
                bar.set_postfix(loss=f"{running:.4f}")
            if step % CHECKPOINT_EVERY == 0 or step == iterations or stop:
                layers = lora_layers(unet)
                run.save({"lora": layers, "optimizer": optimizer.state_dict(), "step": step})
                on_checkpoint(layers, step)
    return lora_layers(unet)
