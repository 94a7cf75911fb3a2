"""The autoencoder's decoder, once more."""

import torch

from training.emoji.decoder import decoder_parameters, train_decoder
from training.emoji.parallel import Exchange, run_workers
from training.emoji.run import Run
from training.emoji.vae import build_vae
from training.emoji.workshop import WORKERS, Workshop


def train(shop: Workshop) -> None:
    """Fine-tune the decoder on the subjects."""
    size = sum(parameter.numel() for parameter in decoder_parameters(build_vae()))
    run_workers(_work, WORKERS, shop, Exchange(WORKERS, size))


def _work(rank: int, shop: Workshop, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    autoencoder = shop.vae()
    train_decoder(
        Run(shop.run_dir, "decoder", primary=rank == 0),
        rank,
        exchange,
        autoencoder,
        shop.pictures,
        shop.latents(autoencoder),
        shop.iterations.decoder,
    )
