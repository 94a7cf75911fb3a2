"""Fine-tunes the decoder alone, on the subjects: the latents, and so the UNet, stay valid."""

# mypy: allow-untyped-calls

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.emoji.latents import LatentCache, compose_variants
from training.emoji.norm import speed_up_group_norms
from training.emoji.parallel import Exchange, Worker
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine
from training.emoji.vae import psnr, reconstruction_loss

PEAK_RATE = 6e-4
BATCH = 6
"""Pictures of one worker."""
LATENT_NOISE = 0.03
"""Noise on latents of unit variance, so that the decoder forgives what the UNet gets wrong."""
LOG_EVERY = 50
CHECKPOINT_EVERY = 200


def decoder_parameters(vae: AutoencoderKL) -> list[torch.nn.Parameter]:
    """Return the parameters that this stage trains."""
    return [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]


def train_decoder(
    run: Run,
    rank: int,
    exchange: Exchange,
    vae: AutoencoderKL,
    pictures: torch.Tensor,
    latents: LatentCache,
    iterations: int,
) -> AutoencoderKL:
    """Train as worker `rank` to `iterations`, on cached latents of `pictures` (uint8 [N, 4, 128, 128])."""
    vae.to(memory_format=torch.channels_last)
    speed_up_group_norms(vae)
    parameters = decoder_parameters(vae)
    worker = Worker(exchange, rank, parameters)
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    step = 0
    if state := run.load():
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    generator = torch.Generator().manual_seed(step * exchange.workers + rank)
    quality, stop = None, False
    with tqdm(total=iterations, initial=step, desc="decoder", mininterval=10, disable=rank > 0) as bar:
        while step < iterations and not stop:
            rate = warmup_cosine(step, iterations, PEAK_RATE)
            for group in optimizer.param_groups:
                group["lr"] = rate
            clean, which, where, how = latents.batch(BATCH, generator)
            target = compose_variants(pictures[which], where, how)
            noisy = clean + LATENT_NOISE * torch.randn(clean.shape, generator=generator)
            noisy = (noisy / vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = vae.decode(noisy).sample.float()
            loss = reconstruction_loss(output, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            value, stop = worker.average(step, loss.item(), run.stopping)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            bar.update()
            batch_quality = float(psnr(output.detach(), target).mean())
            quality = batch_quality if quality is None else 0.97 * quality + 0.03 * batch_quality
            if rank > 0:
                continue
            if step % LOG_EVERY == 0:
                run.log(stage="decoder", step=step, loss=value, psnr=round(quality, 2), rate=rate)
                bar.set_postfix(psnr=f"{quality:.2f}")
            if step % CHECKPOINT_EVERY == 0 or step == iterations or stop:
                run.save({"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
    return vae
