"""Options of ``triton-diffusers serve``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The models that each choice of ``func_name`` leaves out.
LEFT_OUT: Mapping[str, frozenset[str]] = {
    "base": frozenset({"sd_controlnet"}),
    "controlnet": frozenset({"sd_base"}),
    "all": frozenset(),
}


@dataclass(frozen=True)
class ServeOptions:
    """One field per option of ``serve``; times are in seconds, a port of 0 means a free one.

    ``model_dir`` is a path or a URL (``hf://``, ``modelscope://``, ``oss://``, ``s3://``); ``func_name`` is one of
    ``LEFT_OUT``. ``store`` is the setting of that name, None: as the environment has it. ``translator_dir`` is the
    setting of that name, unless the environment has one. ``gateway_port`` is None for Triton without a gateway.
    ``ephemeral`` is True for a server on a free port, whose jobs need not outlive it. ``log_file`` has the full log.
    ``discard_artifacts`` removes the model's compiled artifacts first.
    """

    model_repository: Path
    model_dir: str
    func_name: str = "all"
    store: str | None = None
    translator_dir: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    gateway_port: int | None = None
    tritonserver: Path | None = None
    watch: bool = True
    hang_timeout: float = 60.0
    exit_timeout: int = 15
    log_file: Path | None = None
    extra_arguments: tuple[str, ...] = ()
    ephemeral: bool = False
    discard_artifacts: bool = False
