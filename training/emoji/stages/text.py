"""The text encoder."""

from training.emoji.run import Run
from training.emoji.text_encoder import build_text_encoder, pretrain_text_encoder
from training.emoji.workshop import Workshop


def train(shop: Workshop) -> None:
    """Pretrain the text encoder."""
    pretrain_text_encoder(
        Run(shop.run_dir, "text"),
        build_text_encoder(shop.tokenizer()),
        shop.tokenizer(),
        shop.subjects,
        shop.pictures,
        shop.captioner(1),
        shop.iterations.text,
    )
