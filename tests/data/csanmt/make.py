"""Make the CSANMT folders of the tests, and their translations, by ModelScope's own model class and pipeline.

    pip install modelscope tensorflow-cpu tf_keras jieba sacremoses subword-nmt   # in an environment of its own
    python tests/data/csanmt/make.py

The weights are random. Each folder has ``translations.json``: what the pipeline says to each text alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from modelscope.models.nlp.csanmt.translation import CsanmtForTranslation
from modelscope.pipelines.nlp.translation_pipeline import TranslationPipeline

HERE = Path(__file__).resolve().parent
TEXTS = [
    "红苹果", "蓝色背景上的猫", "一只可爱的狗", "两只狗和三只猫在草地上", "高质量", "杰作", "苹果", "猫", "一", "龘靐",
    "T恤", "3D渲染的红色苹果", "在蓝色背景上的一只红色的猫和一只可爱的狗", "红红红红红红红红", "草地上的猫，猫上的苹果",
    "A cat 和狗",
]  # fmt: skip
BPE = ["苹 果</w>", "蓝 色</w>", "红 色</w>", "背 景</w>", "草 地</w>", "可 爱</w>", "质 量</w>"]
SOURCE = [
    "<EOS>", "苹果", "蓝色", "红色", "背景", "草地", "可爱", "质@@", "量", "高@@", "红", "上", "的", "猫", "狗", "一只",
    "一@@", "只", "两@@", "三@@", "和", "在", "杰@@", "作", "T@@", "恤", "渲@@", "染", "3@@", "D@@", "，", "一",
    "<UNK>",
]  # fmt: skip
TARGET = [
    "<EOS>", "a", "the", "red", "blue", "app@@", "le", "apple", "cat", "dog", "s", "back@@", "ground", "on", "of", ",",
    ".",
    "&apos;s", "&quot;", "@-@", "-", "(", ")", "n't", "two", "three", "grass", "cute", "qual@@", "ity", "%", "$", "?",
    "<UNK>",
]  # fmt: skip
MODEL = {
    "type": "csanmt-translation", "hidden_size": 16, "filter_size": 24, "num_heads": 2, "num_encoder_layers": 3,
    "num_decoder_layers": 2, "attention_dropout": 0.0, "residual_dropout": 0.0, "relu_dropout": 0.0,
    "layer_preproc": "layer_norm", "layer_postproc": "none", "shared_embedding_and_softmax_weights": True,
    "shared_source_target_embedding": False, "initializer_scale": 0.1, "position_info_type": "absolute",
    "max_relative_dis": 4, "num_semantic_encoder_layers": 2, "src_vocab_size": len(SOURCE),
    "trg_vocab_size": len(TARGET), "seed": 1234, "beam_size": 4, "lp_rate": 0.6, "max_decoded_trg_len": 11,
}  # fmt: skip
# Of the matrices, and the seed, by folder: with these, translations are of many words and lengths.
WEIGHTS = {"absolute": (0.8, 0), "relative": (0.2, 1), "shared": (0.8, 5)}
FOLDERS: dict[str, dict[str, Any]] = {
    "absolute": {},
    "relative": {
        "position_info_type": "relative", "shared_embedding_and_softmax_weights": False, "layer_preproc": "none",
        "layer_postproc": "layer_norm", "beam_size": 2, "lp_rate": 1.0,
    },
    "shared": {
        "shared_source_target_embedding": True, "src_vocab_size": len(TARGET), "hidden_size": 10, "beam_size": 1,
    },
}  # fmt: skip


def write(folder: Path, changes: dict[str, Any], scale: float, seed: int) -> None:
    """Write a folder of random weights, and translate with it."""
    model = {**MODEL, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "framework": "tensorflow",
        "task": "translation",
        "pipeline": {"type": "csanmt-translation"},
        "model": model,
        "dataset": {"src_vocab": {"file": "src_vocab.txt"}, "trg_vocab": {"file": "trg_vocab.txt"}},
        "preprocessor": {"src_lang": "zh", "tgt_lang": "en", "src_bpe": {"file": "bpe.zh"}},
    }
    source = SOURCE + ["<unused>"] * (model["src_vocab_size"] - len(SOURCE))
    (folder / "configuration.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    (folder / "bpe.zh").write_text("\n".join(["#version: 0.2", *BPE]) + "\n", encoding="utf-8")
    (folder / "src_vocab.txt").write_text("\n".join(source) + "\n", encoding="utf-8")
    (folder / "trg_vocab.txt").write_text("\n".join(TARGET) + "\n", encoding="utf-8")
    save(folder, model, scale, seed)
    pipeline = TranslationPipeline(model=CsanmtForTranslation(str(folder), **model))
    translations = {text: pipeline(text)["translation"] for text in TEXTS}
    (folder / "translations.json").write_text(
        json.dumps(translations, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def save(folder: Path, model: dict[str, Any], scale: float, seed: int) -> None:
    """Build the graph, fill its variables, save them as the published model has them."""
    rng = np.random.default_rng(seed)
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        CsanmtForTranslation(str(folder), **model)(tf.compat.v1.placeholder(tf.int64, [None, None]))
        for variable in sorted(tf.compat.v1.global_variables(), key=lambda variable: variable.name):
            is_table = "Weights" in variable.name or "Softmax" in variable.name
            deviation = 0.5 if is_table else 0.1 if "augmentation" in variable.name else scale
            center = 1.0 if "layer_norm_scale" in variable.name else 0.0
            variable.load(rng.normal(center, deviation, variable.shape.as_list()).astype(np.float32), session)
        saver = tf.compat.v1.train.Saver()
        saver.save(session, str(folder / "tf_ckpts" / "ckpt-0"), write_meta_graph=False)
    (folder / "tf_ckpts" / "checkpoint").unlink()


if __name__ == "__main__":
    tf.compat.v1.disable_eager_execution()
    for name, changes in FOLDERS.items():
        write(HERE / name, changes, *WEIGHTS[name])
