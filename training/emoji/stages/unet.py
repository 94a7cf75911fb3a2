"""The UNet."""

import torch
from diffusers import UNet2DConditionModel

from training.emoji.evaluate import generate, load_pipeline
from training.emoji.parallel import Exchange, run_workers
from training.emoji.run import Run
from training.emoji.samples import SAMPLE_PROMPTS, SAMPLE_SEEDS, sample_sheet
from training.emoji.unet import build_unet, train_unet
from training.emoji.workshop import WORKERS, Workshop


def train(shop: Workshop) -> None:
    """Train the UNet on cached latents; export and draw a sample sheet every so often."""
    shop.latents(shop.vae())
    size = sum(parameter.numel() for parameter in build_unet().parameters())
    run_workers(_work, WORKERS, shop, Exchange(WORKERS, size))


def _work(rank: int, shop: Workshop, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = build_unet()
    run = Run(shop.run_dir, "unet", primary=rank == 0)

    def on_checkpoint(averaged: UNet2DConditionModel, step: int) -> None:
        if step % shop.export_every == 0 or step == shop.iterations.unet:
            shop.export(averaged)
            pictures = generate(load_pipeline(shop.exported), SAMPLE_PROMPTS, SAMPLE_SEEDS)
            sample_sheet(pictures).save(run.folder / f"sample-{step:06}.png")

    train_unet(
        run,
        rank,
        exchange,
        unet,
        shop.text_encoder(),
        shop.tokenizer(),
        shop.subjects,
        shop.latents(shop.vae()),
        shop.captioner(2),
        shop.iterations.unet,
        on_checkpoint,
    )
