"""The autoencoder: f8, 4 latent channels, so a 128x128 picture is a latent of 16x16."""

# mypy: allow-untyped-calls

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL
from torch.nn import functional
from tqdm import tqdm

from training.emoji.backgrounds import BACKGROUNDS, unit_rgb
from training.emoji.norm import speed_up_group_norms
from training.emoji.pictures import PICTURE_SIZE, compose
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine

CROP = 64
CROP_BATCH = 16
FULL_BATCH = 6
PEAK_RATE = 1e-3
KL_WEIGHT = 1e-6
CHECKPOINT_EVERY = 200


def build_vae() -> AutoencoderKL:
    """Return a fresh autoencoder, 5 M parameters. Widths are multiples of 32: others are far slower on AMX."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64, 128, 160),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=16,
        sample_size=PICTURE_SIZE,
    )


def random_colours(count: int, generator: torch.Generator) -> torch.Tensor:
    """Background colours [count, 3] in -1..1: a quarter white, half named ones, a quarter arbitrary."""
    named = torch.stack([unit_rgb(background) for background in BACKGROUNDS])
    colours = torch.rand(count, 3, generator=generator) * 2.0 - 1.0
    kind = torch.rand(count, generator=generator)
    picks = named[torch.randint(len(named), (count,), generator=generator)]
    colours = torch.where(kind[:, None] < 0.75, picks, colours)
    return torch.where(kind[:, None] < 0.25, torch.ones(3), colours)


def random_pictures(pictures: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` jittered pictures over random backgrounds, [count, 3, 128, 128] in -1..1."""
    picks = torch.randint(len(pictures), (count,), generator=generator)
    scale = 0.75 + 0.35 * torch.rand(count, generator=generator)
    shift = (torch.rand(count, 2, generator=generator) - 0.5) * 0.2
    return compose(pictures[picks], random_colours(count, generator), scale, shift)


def random_crops(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One crop [N, 3, side, side] of each picture, on the 8-pixel grid."""
    steps = (images.shape[-1] - side) // 8 + 1
    corners = torch.randint(steps, (len(images), 2), generator=generator) * 8
    crops = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(images, corners.tolist(), strict=True)
    ]
    return torch.stack(crops)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """MSE + L1/2 + L1 of the finite differences (edges)."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return functional.mse_loss(output, target) + 0.5 * error.abs().mean() + 0.5 * edges


def psnr(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Peak signal to noise ratio of each picture in dB, [N]; pictures in -1..1."""
    error = (output.clamp(-1, 1) - target).square().flatten(1).mean(1)
    return 10.0 * torch.log10(4.0 / error.clamp_min(1e-10))


def _batches(pictures: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    while True:
        yield random_crops(random_pictures(pictures, CROP_BATCH, generator), CROP, generator)
        yield random_pictures(pictures, FULL_BATCH, generator)


def train_vae(run: Run, pictures: torch.Tensor, iterations: int) -> AutoencoderKL:
    """Train encoder and decoder on all pictures (uint8 [N, 4, 128, 128]); resumes from the run's checkpoint."""
    vae = build_vae().to(memory_format=torch.channels_last)
    speed_up_group_norms(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    step = 0
    if state := run.load():
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    generator = torch.Generator().manual_seed(step)
    batches = _batches(pictures, generator)
    held = random_pictures(pictures, 32, torch.Generator().manual_seed(7))
    with tqdm(total=iterations, initial=step, desc="vae", mininterval=10) as bar:
        while step < iterations and not run.stopping:
            rate = warmup_cosine(step, iterations, PEAK_RATE)
            for group in optimizer.param_groups:
                group["lr"] = rate
            target = next(batches).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                posterior = vae.encode(target).latent_dist
                output = vae.decode(posterior.sample()).sample.float()
            loss = reconstruction_loss(output, target) + KL_WEIGHT * posterior.kl().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.update()
            if step % CHECKPOINT_EVERY == 0 or step == iterations or run.stopping:
                quality = float(psnr(reconstruct(vae, held), held).mean())
                run.log(stage="vae", step=step, loss=loss.item(), psnr=round(quality, 2), rate=rate)
                run.save({"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
                bar.set_postfix(psnr=f"{quality:.2f}")
    return vae


@torch.inference_mode()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """Encode (mode) and decode pictures [N, 3, H, W], in bfloat16."""
    parts = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for part in images.split(batch):
            parts.append(vae.decode(vae.encode(part).latent_dist.mode()).sample.float())
    return torch.cat(parts)


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """Unscaled latents (posterior mode) [N, 4, H/8, W/8] of pictures [N, 3, H, W], computed in bfloat16."""
    parts = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for part in images.split(batch):
            part = part.contiguous(memory_format=torch.channels_last)
            parts.append(vae.encode(part).latent_dist.mode().float())
    return torch.cat(parts)
