"""The training data."""

from training.emoji.lora_styles import STYLES
from training.emoji.workshop import Workshop


def fetch(shop: Workshop) -> None:
    """Fetch the packages and check that every subject has a picture."""
    shop.assets.fetch()
    print(f"{len(shop.pictures)} subjects, {len(shop.assets.all_picture_paths())} pictures in all")
    for style in STYLES:
        print(f"{len(shop.style_pictures(style))} of the subjects in the style {style.name}")
