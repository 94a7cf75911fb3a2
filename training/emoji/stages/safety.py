"""The safety checker."""

from training.emoji.run import Run
from training.emoji.safety import train_safety_checker
from training.emoji.workshop import Workshop


def train(shop: Workshop) -> None:
    """Train the safety checker."""
    train_safety_checker(Run(shop.run_dir, "safety"), shop.pictures, shop.iterations.safety)
