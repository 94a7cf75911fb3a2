"""Marian folders in opus-mt's layout, with random weights and pieces of their own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

CHINESE = ["红苹果", "蓝色背景上的猫", "一只可爱的狗", "高质量", "草地上的独角兽", "杰作", "两个苹果和三只猫"]
ENGLISH = ["a red apple", "a cat on a blue background", "a cute dog", "high quality", "masterpiece", "two apples"]


def write_marian(folder: Path, *, seed: int = 0) -> Path:
    """Write a small model whose output depends on its input, and ends at its bound."""
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for side, texts in (("source", CHINESE), ("target", ENGLISH)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
        )
        (folder / f"{side}.spm").write_bytes(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        names += [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    pieces = [name for name in dict.fromkeys(names) if name not in ("<s>", "</s>", "<unk>")]
    vocabulary = {name: number for number, name in enumerate(["</s>", "<unk>", *pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "zh", "target_lang": "en"}))
    padding = len(vocabulary) - 1
    torch.manual_seed(seed)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(vocabulary),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=512,
            activation_function="swish",
            scale_embedding=True,
            init_std=0.4,
            eos_token_id=0,
            bos_token_id=0,
            forced_eos_token_id=None,
            pad_token_id=padding,
            decoder_start_token_id=padding,
            num_beams=1,
            max_length=512,
        )
    )
    with torch.no_grad():
        model.get_input_embeddings().weight[padding] = 0  # Marian's decoder begins with nothing
    model.generation_config.bad_words_ids = [[padding]]
    model.save_pretrained(folder)
    return folder
