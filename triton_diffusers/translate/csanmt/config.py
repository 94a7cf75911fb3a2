"""The description of a CSANMT folder, ``configuration.json``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from triton_diffusers.checkpoints.errors import LoadError

CONFIGURATION = "configuration.json"

Count = Annotated[int, Field(ge=1, le=1_000_000)]
LayerProcess = Literal["layer_norm", "none", ""]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("expected a file within the folder")
    return name


class _File(BaseModel):
    file: Annotated[str, AfterValidator(_inside)]


class Architecture(BaseModel):
    """The network's sizes and the search's parameters."""

    hidden_size: Count
    num_heads: Count
    num_encoder_layers: Count
    num_decoder_layers: Count
    num_semantic_encoder_layers: Count
    layer_preproc: LayerProcess
    layer_postproc: LayerProcess
    shared_embedding_and_softmax_weights: bool
    shared_source_target_embedding: bool
    position_info_type: Literal["absolute", "relative"]
    max_relative_dis: Count
    src_vocab_size: Count
    trg_vocab_size: Count
    beam_size: int = Field(ge=1, le=64)
    lp_rate: float = Field(ge=0, le=10)
    max_decoded_trg_len: int = Field(ge=1, le=10_000)


class _Vocabularies(BaseModel):
    src_vocab: _File
    trg_vocab: _File


class _Preprocessor(BaseModel):
    src_lang: Literal["zh"]
    tgt_lang: Literal["en"]
    src_bpe: _File


class CsanmtConfig(BaseModel):
    """The content of a translator's ``configuration.json``."""

    model: Architecture
    dataset: _Vocabularies
    preprocessor: _Preprocessor

    @classmethod
    def read(cls, folder: Path) -> CsanmtConfig:
        """Read a folder's description. Raises ``LoadError`` with the first invalid entry."""
        path = folder / CONFIGURATION
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            first = error.errors()[0]
            entry = ".".join(map(str, first["loc"])) or "it"
            raise LoadError(f"{path}: {entry} is invalid: {first['msg']}") from error
        except (OSError, ValueError) as error:
            raise LoadError(f"{path} cannot be read: {error}") from error
