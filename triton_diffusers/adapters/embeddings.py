"""Attach textual-inversion embeddings: files of a model directory that become words of its prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from triton_diffusers.adapters.places import EMBEDDING_SUFFIXES
from triton_diffusers.util.pickles import read_pickle

logger = logging.getLogger(__name__)

_PARTS = ("clip_l", "clip_g")  # of a file for the text encoders of SDXL, in their order


def attach_embeddings(folder: Path, tokenizers: Sequence[Any], text_encoders: Sequence[Any]) -> None:
    """Make each embedding in ``folder`` a word of all tokenizers and text encoders, named like its file.

    Several vectors become several tokens, ``word``, ``word_1``, ``word_2`` …, as in diffusers. An unusable file is left
    out with a logged reason, since the others work without it. Pickles are read as data only.
    """
    vectors: dict[str, list[torch.Tensor]] = {}
    widths = [encoder.get_input_embeddings().embedding_dim for encoder in text_encoders]
    max_vectors = tokenizers[0].model_max_length - 2
    # The tokenizers fold case, so words that differ by case only are equal.
    taken = {word.casefold() for word in tokenizers[0].get_vocab()}
    # "word" before "word_1", which would be read as its second vector.
    for path in sorted(_files(folder), key=lambda path: (path.stem.casefold(), path.name)):
        try:
            found = _of_encoders(_read(path), widths, max_vectors)
            # Includes one name after the last vector, which would be read as a further vector of this word.
            names = {path.stem.casefold(), *(f"{path.stem}_{n}".casefold() for n in range(1, len(found[0]) + 1))}
            if clash := sorted(names & taken):
                raise ValueError(f"the tokenizer or another embedding already has the word {clash[0]!r}")
        except Exception as error:  # noqa: BLE001  # libraries may raise anything about a broken file
            logger.warning("embedding %s is left out: %s: %s", path, type(error).__name__, error)
            continue
        taken |= names
        vectors[path.stem] = found
    if vectors:
        for number, (tokenizer, encoder) in enumerate(zip(tokenizers, text_encoders, strict=True)):
            _loader().load_textual_inversion(
                [{word: found[number]} for word, found in vectors.items()],
                token=list(vectors),
                tokenizer=tokenizer,
                text_encoder=encoder,
            )
        logger.info("embeddings: %s", ", ".join(vectors))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in EMBEDDING_SUFFIXES] if folder.is_dir() else []


def _read(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else read_pickle(path)


def _of_encoders(state: Any, widths: Sequence[int], max_vectors: int) -> list[torch.Tensor]:
    """Return a file's vectors for each text encoder. Raises ``ValueError``."""
    if len(widths) == 1:
        return [_checked(state, widths[0], max_vectors)]
    if not isinstance(state, Mapping) or set(state) != set(_PARTS):
        raise ValueError(f"it is not for a model of two text encoders: expected {' and '.join(_PARTS)}")
    found = [_checked(state[part], width, max_vectors) for part, width in zip(_PARTS, widths, strict=True)]
    if len({len(vectors) for vectors in found}) != 1:
        raise ValueError("its numbers of vectors differ between the text encoders")
    return found


def _checked(state: Any, width: int, max_vectors: int) -> torch.Tensor:
    """Return the vectors (n, width) in a file of diffusers or AUTOMATIC1111. Raises ``ValueError``.

    diffusers misses some of these faults, or finds them only after the tokenizer has the word.
    """
    if isinstance(state, Mapping) and "string_to_param" in state:
        state = state["string_to_param"]
    if isinstance(state, Mapping):
        if len(state) != 1:
            raise ValueError(f"it holds {len(state)} entries; expected one, for one text encoder")
        (state,) = state.values()
    if not isinstance(state, torch.Tensor) or not state.is_floating_point() or state.ndim not in (1, 2):
        raise ValueError("it holds no vectors")
    vectors = state.detach().reshape(-1, state.shape[-1])
    if vectors.shape[1] != width:
        raise ValueError(f"its vectors have {vectors.shape[1]} numbers, those of this model's text encoder {width}")
    if not 1 <= len(vectors) <= max_vectors:
        raise ValueError(f"it has {len(vectors)} vectors; a chunk of a prompt holds 1 to {max_vectors}")
    if not vectors.isfinite().all():
        raise ValueError("it contains NaN or infinite values")
    return vectors


def _loader() -> Any:
    from diffusers.loaders import TextualInversionLoaderMixin

    class Loader(TextualInversionLoaderMixin):  # type: ignore[misc]
        """The parts of a pipeline that the mixin needs when it gets tokenizer and text encoder."""

        hf_device_map = None
        components: Mapping[str, Any] = {}

    return Loader()
