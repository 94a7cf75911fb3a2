"""The model: Marian, small. And its two SentencePiece models, in the layout that opus-mt has."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

from training.translator.vocabulary import Word

PIECES = {"source": 4000, "target": 2600}
WIDTH = 192
ENCODER_LAYERS = 2
DECODER_LAYERS = 1
HEADS = 4
FEED_FORWARD = 512
POSITIONS = 256
FORBIDDEN = -10_000.0
END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"


def train_pieces(sentences: Iterable[str], side: str, folder: Path) -> None:
    """Train `<side>.spm` on sentences of one language; every character of theirs is in it.

    Chinese has no spaces, and so no piece that stands for one at the beginning.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=PIECES[side],
        character_coverage=1.0,
        add_dummy_prefix=side == "target",
        model_type="unigram" if side == "source" else "bpe",
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / f"{side}.spm").write_bytes(model.getvalue())


class Pieces:
    """Text to ids of the vocabulary that both languages share, `vocab.json`.

    English pieces are the first ones, `outputs` of them, so that nothing else needs to be scored; the padding is last.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source, self._target = (
            sentencepiece.SentencePieceProcessor(str(folder / f"{side}.spm")) for side in ("source", "target")
        )
        english, chinese = (
            [side.id_to_piece(number) for number in range(side.get_piece_size())]
            for side in (self._target, self._source)
        )
        names = [name for name in dict.fromkeys([*english, *chinese]) if name not in (END, UNKNOWN, "<s>")]
        self.vocabulary = {name: number for number, name in enumerate([END, UNKNOWN, *names, PADDING])}
        self.outputs = 2 + len(set(english) - {END, UNKNOWN, "<s>"})

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        for side in PIECES:
            shutil.copy(self._folder / f"{side}.spm", folder)
        (folder / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False, indent=0) + "\n")
        config = {
            "tokenizer_class": "MarianTokenizer",
            "source_lang": "zh",
            "target_lang": "en",
            "model_max_length": POSITIONS,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    def source(self, text: str) -> list[int]:
        """Ids of a Chinese text, with the end."""
        return self._ids(self._source.encode(text, out_type=str))

    def target(self, text: str) -> list[int]:
        """Ids of an English text, with the end."""
        return self._ids(self._target.encode(text, out_type=str))

    @property
    def padding(self) -> int:
        return self.vocabulary[PADDING]

    def _ids(self, pieces: list[str]) -> list[int]:
        unknown = self.vocabulary[UNKNOWN]
        return [*(self.vocabulary.get(piece, unknown) for piece in pieces), self.vocabulary[END]]


def build_model(pieces: Pieces, words: Iterable[Word]) -> MarianMTModel:
    """Return the untrained model, which knows `words`: a Chinese piece has the embedding of its English ones.

    What is left to learn is to say words in English order, and those that are several pieces. Chinese pieces are never
    said: their bias forbids it.
    """
    model = MarianMTModel(_config(pieces))
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table.normal_(std=WIDTH**-0.5)
        table[pieces.padding] = 0
        for word in words:
            chinese, english = pieces.source(word.chinese)[:-1], pieces.target(word.english)[:-1]
            if len(chinese) == 1 and chinese[0] >= pieces.outputs:
                table[chinese[0]] = table[english].sum(0) / len(english) ** 0.5
        model.final_logits_bias[:, pieces.outputs :] = FORBIDDEN
    return model


# Right translations of some sixty phrases scored -0.13 or better; nonsense for twenty others -0.35 or worse, but for
# those of characters that no piece has.
MIN_SCORE = -0.3


def _config(pieces: Pieces) -> MarianConfig:
    return MarianConfig(
        vocab_size=len(pieces.vocabulary),
        d_model=WIDTH,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=FEED_FORWARD,
        decoder_ffn_dim=FEED_FORWARD,
        max_position_embeddings=POSITIONS,
        max_length=None,
        activation_function="swish",
        scale_embedding=True,
        static_position_embeddings=True,
        share_encoder_decoder_embeddings=True,
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=0.02,
        bos_token_id=pieces.vocabulary[END],
        eos_token_id=pieces.vocabulary[END],
        forced_eos_token_id=None,
        pad_token_id=pieces.padding,
        decoder_start_token_id=pieces.padding,
        num_beams=1,
        min_score=MIN_SCORE,
    )
