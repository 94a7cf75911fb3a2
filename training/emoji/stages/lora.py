"""The LoRAs, one for each style."""

import torch

from training.emoji.evaluate import generate, load_pipeline
from training.emoji.latents import LatentCache, build_cache
from training.emoji.lora import RANK, add_lora, train_lora
from training.emoji.lora_export import Layers, write_lora
from training.emoji.lora_styles import WHITE, Style
from training.emoji.parallel import Exchange, run_workers
from training.emoji.run import Run
from training.emoji.samples import SAMPLE_PROMPTS, SAMPLE_SEEDS, sample_sheet
from training.emoji.unet import build_unet
from training.emoji.workshop import WORKERS, Workshop


def train(shop: Workshop, style: Style) -> None:
    """Train the LoRA of a style on the exported pipeline; export it at every checkpoint, draw a sheet at the end."""
    size = sum(parameter.numel() for parameter in add_lora(build_unet()))
    run_workers(_work, WORKERS, shop, style, _latents(shop, style), Exchange(WORKERS, size))


def _latents(shop: Workshop, style: Style) -> LatentCache:
    """Latents of the style's pictures, encoded once for each run."""
    path = shop.run_dir / style.stage / "latents.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    on_black = shop.style_pictures(style, WHITE) if style.one_ink else None
    vae = load_pipeline(shop.exported).vae
    return build_cache(vae, shop.style_pictures(style), path, WORKERS, on_black)


def _work(rank: int, shop: Workshop, style: Style, latents: LatentCache, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    run = Run(shop.run_dir, style.stage, primary=rank == 0)
    file = shop.output / "lora" / f"{style.name}.safetensors"

    def on_checkpoint(layers: Layers, step: int) -> None:
        write_lora(file, layers, RANK, style.alpha, style.layout)
        if step == style.iterations:
            pipeline = load_pipeline(shop.exported)
            pipeline.load_lora_weights(file)
            pictures = generate(pipeline, SAMPLE_PROMPTS, SAMPLE_SEEDS, shop.guidance)
            sample_sheet(pictures).save(run.folder / "sample.png")

    train_lora(
        run,
        rank,
        exchange,
        load_pipeline(shop.exported),
        shop.subjects,
        latents,
        shop.captioner(3),
        style.iterations,
        on_checkpoint,
    )
