"""ModelScope's CSANMT (``nlp_csanmt_translation_zh2en``) in PyTorch, from the published folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.settings import Settings
from triton_diffusers.translate.csanmt.config import CsanmtConfig
from triton_diffusers.translate.csanmt.network import CsanmtNetwork
from triton_diffusers.translate.csanmt.search import search
from triton_diffusers.translate.csanmt.tensor_bundle import BundleError, TensorBundle
from triton_diffusers.translate.csanmt.tokenizer import CsanmtTokenizer
from triton_diffusers.translate.engines.protocol import max_output_tokens

_CHECKPOINT = Path("tf_ckpts") / "ckpt-0"


class _Weights(dict[str, torch.Tensor]):
    """The variables of a checkpoint, read on first use: an optimizer's variables never are."""

    def __init__(self, bundle: TensorBundle) -> None:
        super().__init__()
        self._bundle = bundle

    def __missing__(self, name: str) -> torch.Tensor:
        if name not in self._bundle:
            raise BundleError(f"the checkpoint has no variable {name}")
        self[name] = weight = torch.from_numpy(self._bundle[name])
        return weight


class CsanmtEngine:
    """Runs a CSANMT folder in float32. The number of beams is set in its ``configuration.json``."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        """Read the folder.

        Raises:
            LoadError: its description is invalid.
            OSError, ValueError, RuntimeError: its files are missing, broken, or of another model.
        """
        config = CsanmtConfig.read(folder)
        self._config = config.model
        self._tokenizer = CsanmtTokenizer(folder, config, cache_dir)
        self._network = CsanmtNetwork(config.model, _Weights(TensorBundle(folder / _CHECKPOINT)))

    @classmethod
    def load(cls, folder: Path, settings: Settings) -> CsanmtEngine:
        """Load a folder and test it. Raises ``LoadError``."""
        try:
            engine = cls(folder, settings.cache_dir)
            engine.translate(["猫"])  # uses every weight
        except (OSError, ValueError, IndexError, RuntimeError) as error:
            raise LoadError(f"{folder} cannot be loaded: {one_line(error)}") from error
        return engine

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Return one English text for each Chinese one."""
        sources = [self._tokenizer.encode(text) for text in texts]
        found = search(self._network, self._config, sources, [max_output_tokens(len(source) + 1) for source in sources])
        return [self._tokenizer.decode(numbers).strip() for numbers in found]
