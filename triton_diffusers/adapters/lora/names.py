"""The spellings of a model's layers in LoRA files of different tools.

diffusers' own converters rename by replacing parts of a key for any model, and drop unknown keys. Here every spelling
is derived from the layers of the loaded model, so that a key means one layer or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from triton_diffusers.adapters.lora.ldm import ldm_names
from triton_diffusers.adapters.lora.targets import TEXT_ENCODER, UNET

# transformers has removed this level of the text encoder; files have it.
_TEXT_MODEL = "text_model."
# Older diffusers' attention processors named the layers of all models like those of the UNet.
_OLDER_ENDINGS = {
    ".to_out.0": ".to_out",
    ".self_attn.q_proj": ".self_attn.to_q",
    ".self_attn.k_proj": ".self_attn.to_k",
    ".self_attn.v_proj": ".self_attn.to_v",
    ".self_attn.out_proj": ".self_attn.to_out",
}

_KOHYA_PREFIXES = {TEXT_ENCODER: ("lora_te_", "lora_te1_"), f"{TEXT_ENCODER}_2": ("lora_te2_",)}


class LayerNames:
    """Index of a model's layers by all their spellings."""

    def __init__(self, paths: Iterable[str]) -> None:
        layers: dict[str, list[str]] = {}
        for path in paths:
            network, _, inner = path.partition(".")
            layers.setdefault(network, []).append(inner)
        self._paths: dict[str, str] = {}
        unet = layers.pop(UNET, [])
        original = ldm_names(unet)
        for inner in unet:
            path = f"{UNET}.{inner}"
            for spelling in _endings(inner):
                self._paths |= {spelling: path, f"{UNET}.{spelling}": path}
            for spelling in filter(None, (inner, original.get(inner))):
                self._paths[f"lora_unet_{_flat(spelling)}"] = path
        for network, inners in layers.items():
            for inner in inners:
                self._add_text_layer(network, inner)

    def _add_text_layer(self, network: str, inner: str) -> None:
        path, bare = f"{network}.{inner}", inner.removeprefix(_TEXT_MODEL)
        for level in ("", _TEXT_MODEL):
            for spelling in _endings(level + bare):
                self._paths[f"{network}.{spelling}"] = path
                if network == TEXT_ENCODER:
                    self._paths[spelling] = path
            for prefix in _KOHYA_PREFIXES[network]:
                self._paths[prefix + _flat(level + bare)] = path

    def find(self, spelling: str) -> str | None:
        """Return the module path of a layer in any spelling; None if the model has no such layer."""
        return self._paths.get(spelling.replace("base_model.model.", "", 1).replace(".processor.", "."))


def _endings(inner: str) -> Iterator[str]:
    yield inner
    for ending, older in _OLDER_ENDINGS.items():
        if inner.endswith(ending):
            yield inner.removesuffix(ending) + older


def _flat(inner: str) -> str:
    return inner.replace(".", "_")
