"""A small byte-level BPE in CLIP's format (`vocab.json`, `merges.txt`), trained on captions."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

VOCABULARY_SIZE = 2048
MAX_LENGTH = 77
START = "<|startoftext|>"
END = "<|endoftext|>"
WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def train_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Return a CLIPTokenizer of 2,048 tokens. It has all 256 bytes, within and at the end of words: any text fits."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[f"{byte}</w>" for byte in alphabet],
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    model = bpe.to_str()
    return _clip_tokenizer(model, alphabet)


def _clip_tokenizer(serialised: str, alphabet: list[str]) -> CLIPTokenizer:
    import json

    merges = [tuple(merge) for merge in json.loads(serialised)["model"]["merges"]]
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(merge) for merge in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
