"""Description of a loaded model: a model answers with it, and runners tell the gateways of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from triton_diffusers.api.request import ModelDefaults

DESCRIBE = "describe"
"""A generating model answers a request with this ``func_name`` at once, with its description in ``parameters``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """Name, defaults and adapters of a loaded model. Paths are relative to its directory."""

    name: str
    defaults: ModelDefaults
    loras: tuple[str, ...] = ()
    controlnets: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the description as values of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelDescription:
        """Return the description that ``to_json`` has written; members of a later version are ignored."""
        lists = {name: tuple(document.get(name, ())) for name in ("loras", "controlnets", "embeddings")}
        defaults = document["defaults"]
        known = {name: defaults[name] for name in ModelDefaults.__dataclass_fields__ if name in defaults}
        return cls(name=document["name"], defaults=ModelDefaults(**known), **lists)
