"""How long a prompt takes to translate: ``python -m benchmarks.translator``.

The model has opus-mt's size (65,000 pieces, width 512, 6 + 6 layers) and random weights. Speed does not depend on them
but for one thing: they never say the end, so that every translation is as long as the server lets it become
(``most_output_tokens``), well beyond a real one. The figures are the worst that can come.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

from benchmarks.figures import percentile
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from triton_diffusers.settings import Settings
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine
from triton_diffusers.translate.engines.protocol import most_output_tokens
from triton_diffusers.translate.translator import Field, Translator

EMBEDDED = Settings().translator_dir
PIECES = 65_000
WORDS = 20
TAGS = 4
"""Of a prompt that is a list: as many words, in so many tags."""
WARM_UP = 5


def write_model(folder: Path) -> None:
    """A Marian folder of opus-mt's size, with the embedded translator's pieces and many more that nothing says."""
    for side in ("source", "target"):
        shutil.copy(EMBEDDED / f"{side}.spm", folder)
    known = [piece for piece in json.loads((EMBEDDED / "vocab.json").read_text()) if piece != "<pad>"]
    pieces = [*known, *(f"piece-{number}" for number in range(PIECES - len(known))), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "tokenizer_config.json").write_text('{"source_lang": "zh", "target_lang": "en"}')
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(pieces),
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
        pad_token_id=PIECES,
        decoder_start_token_id=PIECES,
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
        if not isinstance(outcome, str):
            raise outcome
    counted = times[WARM_UP:]
    return {"prompts": len(counted), **{f"p{p}_ms": round(percentile(counted, p), 1) for p in (50, 95, 99)}}


def main() -> None:
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
            translator = Translator(engine, most_chars=1000, most_chinese=1000, seconds=60, remembered=0)
            figures[name] = measure(translator, prompts(arguments.prompts + WARM_UP, tags))
            figures[name]["output_tokens"] = most_output_tokens(WORDS // tags + 1)
            say(f"{name}: {figures[name]}")
    model = f"{PIECES} pieces, width 512, 6 + 6 layers, random weights, int8, greedy"
    write_json(arguments.output, {"machine": described, "model": model, "words": WORDS, "prompts": figures})
    rows = [[name, *(str(value) for value in found.values())] for name, found in figures.items()]
    print(machine_line(described))
    print(markdown_table(["20 words", *next(iter(figures.values()))], rows))


if __name__ == "__main__":
    main()
