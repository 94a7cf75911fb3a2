"""The autoencoder."""

from training.emoji.pictures import load_pictures
from training.emoji.run import Run
from training.emoji.vae import train_vae
from training.emoji.workshop import Workshop


def train(shop: Workshop) -> None:
    """Train the autoencoder on all pictures, not only the subjects'."""
    pictures = load_pictures(shop.assets.all_picture_paths())
    train_vae(Run(shop.run_dir, "vae"), pictures, shop.iterations.vae)
