"""Textual-inversion embeddings: files of a model directory that become words of its prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from triton_diffusers.util.pickles import read_pickle

logger = logging.getLogger(__name__)

_SUFFIXES = {".safetensors", ".pt", ".bin"}


def attach_embeddings(folder: Path, tokenizer: Any, text_encoder: Any) -> None:
    """Make each embedding in ``folder`` a word of ``tokenizer`` and ``text_encoder``: its file's name without suffix.

    Several vectors become several tokens, ``word``, ``word_1``, ``word_2`` …, as diffusers has it. A file that cannot
    be used is left out, and the log says why: the others are as good without it. Pickles are read as data only.
    """
    vectors: dict[str, torch.Tensor] = {}
    width = text_encoder.get_input_embeddings().embedding_dim
    most = tokenizer.model_max_length - 2
    # The tokenizer folds case, so that words which differ by it alone are one.
    taken = {word.casefold() for word in tokenizer.get_vocab()}
    # "word" before "word_1", which would be read as its second vector.
    for path in sorted(_files(folder), key=lambda path: (path.stem.casefold(), path.name)):
        try:
            found = _checked(_read(path), width, most)
            # One more than it has vectors: that word would be read as a further one.
            names = {path.stem.casefold(), *(f"{path.stem}_{n}".casefold() for n in range(1, len(found) + 1))}
            if clash := sorted(names & taken):
                raise ValueError(f"the tokenizer or another embedding has the word {clash[0]!r} already")
        except Exception as error:  # noqa: BLE001  # the libraries raise what they like about a broken file
            logger.warning("embedding %s is left out: %s: %s", path, type(error).__name__, error)
            continue
        taken |= names
        vectors[path.stem] = found
    if vectors:
        _loader().load_textual_inversion(
            [{word: found} for word, found in vectors.items()],
            token=list(vectors),
            tokenizer=tokenizer,
            text_encoder=text_encoder,
        )
        logger.info("embeddings: %s", ", ".join(vectors))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in _SUFFIXES] if folder.is_dir() else []


def _read(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else read_pickle(path)


def _checked(state: Any, width: int, most: int) -> torch.Tensor:
    """The vectors (n, width) in a file of diffusers or of AUTOMATIC1111. Raises ``ValueError``.

    Diffusers would find some of these faults too, but others only when the tokenizer knows the word already.
    """
    if isinstance(state, Mapping) and "string_to_param" in state:
        state = state["string_to_param"]
    if isinstance(state, Mapping):
        if len(state) != 1:
            raise ValueError(f"it holds {len(state)} entries; one, for one text encoder, can be used")
        (state,) = state.values()
    if not isinstance(state, torch.Tensor) or not state.is_floating_point() or state.ndim not in (1, 2):
        raise ValueError("it holds no vectors")
    vectors = state.detach().reshape(-1, state.shape[-1])
    if vectors.shape[1] != width:
        raise ValueError(f"its vectors have {vectors.shape[1]} numbers, those of this model's text encoder {width}")
    if not 1 <= len(vectors) <= most:
        raise ValueError(f"it has {len(vectors)} vectors; a chunk of a prompt holds 1 to {most}")
    if not vectors.isfinite().all():
        raise ValueError("its numbers are not finite")
    return vectors


def _loader() -> Any:
    from diffusers.loaders import TextualInversionLoaderMixin

    class Loader(TextualInversionLoaderMixin):  # type: ignore[misc]
        """What the mixin needs of a pipeline when it is given tokenizer and text encoder."""

        hf_device_map = None
        components: Mapping[str, Any] = {}

    return Loader()
