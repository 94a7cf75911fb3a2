"""A model with a Chinese BERT as its text encoder, as Taiyi is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

CHARACTERS = "红苹果猫狗在蓝色背景上的，。"
_POSITIONS = 16


def make_chinese(folder: Path, *, width: int) -> None:
    """Replace text encoder and tokenizer of a folder in the diffusers layout by a random BERT of two layers."""
    from transformers import BertConfig, BertModel, BertTokenizer

    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS]
    vocabulary = folder / "tokenizer" / "vocab.txt"
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(vocabulary), model_max_length=_POSITIONS).save_pretrained(folder / "tokenizer")
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=64,
        max_position_embeddings=_POSITIONS,
    )
    BertModel(config).save_pretrained(folder / "text_encoder")
    index = folder / "model_index.json"
    changes = {"text_encoder": ["transformers", "BertModel"], "tokenizer": ["transformers", "BertTokenizer"]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **changes}))
