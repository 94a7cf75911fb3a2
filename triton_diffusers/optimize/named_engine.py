"""An engine and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from triton_diffusers.engines import Engine


@dataclass(frozen=True, slots=True, eq=False)
class NamedEngine:
    """``name`` is ``eager``, or that of the artifact: ``openvino-bfloat16``."""

    name: str
    engine: Engine
