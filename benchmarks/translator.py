"""How long a prompt takes to translate: ``python -m benchmarks.translator``.

The model has opus-mt's size (32,000 pieces of each language, width 512, 6 + 6 layers) and random weights. Speed does
not depend on them but for one thing: they never say the end. So each prompt is measured at two lengths of its
translation: a usual one (``USUAL_OUTPUT``), and the longest that the server allows (``max_output_tokens``).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel
from transformers.utils.sentencepiece_model_pb2_new import ModelProto  # sentencepiece's wants a newer protobuf

from benchmarks.figures import percentile
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines import ctranslate2 as ctranslate2_engine
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine
from triton_diffusers.translate.engines.protocol import max_output_tokens
from triton_diffusers.translate.translator import Field, Translator

EMBEDDED = Settings().translator_dir
PIECES = 32_000
"""Of each language, as opus-mt-zh-en has."""
WORDS = 20
USUAL_OUTPUT = 1.3
"""English pieces to a Chinese word: common words are a piece or two, and articles come in between."""
TAGS = 4
"""Of a prompt that is a list: as many words, in so many tags."""
WARM_UP = 5


def write_pieces(side: str, folder: Path) -> list[str]:
    """Return the embedded translator's pieces of one language, and as many more, which no text has, as opus-mt has."""
    model = ModelProto()
    model.ParseFromString((EMBEDDED / f"{side}.spm").read_bytes())
    while len(model.pieces) < PIECES:
        model.pieces.add(piece=f"{side}-{len(model.pieces)}", score=-100.0)
    (folder / f"{side}.spm").write_bytes(model.SerializeToString())
    return [piece.piece for piece in model.pieces]


def write_model(folder: Path) -> None:
    """Return a Marian folder of opus-mt's size."""
    special = ["</s>", "<unk>"]
    pieces = dict.fromkeys([*special, *write_pieces("source", folder), *write_pieces("target", folder)])
    pieces.pop("<s>", None)
    vocabulary = [*pieces, "<pad>"]
    padding = len(vocabulary) - 1
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(vocabulary)}))
    (folder / "tokenizer_config.json").write_text('{"source_lang": "zh", "target_lang": "en"}')
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary),
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
        eos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=padding,
        decoder_start_token_id=padding,
    )
    MarianMTModel(config).save_pretrained(folder)


def prompts(count: int, tags: int) -> list[str]:
    """Prompts of 20 words, each a piece of its own: a sentence, or a list of tags."""
    source = sentencepiece.SentencePieceProcessor(str(EMBEDDED / "source.spm"))
    pieces = [source.id_to_piece(number) for number in range(source.get_piece_size())]
    words = [piece for piece in pieces if len(piece) == 2 and all("\u4e00" <= letter <= "\u9fff" for letter in piece)]
    draw = random.Random(0)
    each = WORDS // tags
    return ["，".join("".join(draw.sample(words, each)) for _ in range(tags)) for _ in range(count)]


def measure(translator: Translator, texts: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of one prompt, one after another."""
    times = []
    for text in texts:
        began = time.perf_counter()
        (outcome,) = translator.translate([Field("prompt", text)])
        times.append((time.perf_counter() - began) * 1000)
        if isinstance(outcome, Exception):
            raise outcome
    counted = times[WARM_UP:]
    return {"prompts": len(counted), **{f"p{p}_ms": round(percentile(counted, p), 1) for p in (50, 95, 99)}}


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    columns = {"output_tokens": "pieces in English", "p50_ms": "p50 (ms)", "p95_ms": "p95 (ms)", "p99_ms": "p99 (ms)"}
    rows = [(name, *(str(found[key]) for key in columns)) for name, found in figures["prompts"].items()]
    return markdown_table((f"{WORDS} words", *columns.values()), rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return a line about the machine and the versions of the table."""
    return f"{figures['model']}. {machine_line(figures['machine'])}"


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="How long a prompt takes to translate.")
    parser.add_argument("--prompts", type=int, default=100, help="prompts of each kind (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "translator.json")
    arguments = parser.parse_args()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder)
        engine = CTranslate2Engine.load(folder, Settings())
        for name, tags in (("a sentence", 1), (f"a list of {TAGS}", TAGS)):
            source_tokens = WORDS // tags + 1
            lengths = {"usual": round(source_tokens * USUAL_OUTPUT), "longest": max_output_tokens(source_tokens)}
            for length, tokens in lengths.items():
                translator = Translator(engine, max_chars=1000, max_chinese_chars=1000, seconds=60, cache_size=0)
                with mock.patch.object(ctranslate2_engine, "max_output_tokens", lambda _, tokens=tokens: tokens):
                    found = measure(translator, prompts(arguments.prompts + WARM_UP, tags))
                figures[f"{name}, {length}"] = {**found, "output_tokens": tokens * tags}
                say(f"{name}, {length}: {found}")
    model = f"{PIECES} pieces of each language, width 512, 6 + 6 layers, random weights, int8, greedy"
    write_json(arguments.output, {"machine": described, "model": model, "words": WORDS, "prompts": figures})
    print(table({"prompts": figures}))
    print(machine_line(described))


if __name__ == "__main__":
    main()
