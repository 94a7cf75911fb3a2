"""Command line and environment of tritonserver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from triton_diffusers.api.contract import FORWARDED_HEADERS
from triton_diffusers.launcher.endpoint import CONTROL_HEADER
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.ports import Ports
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.runtime import TritonRuntime
from triton_diffusers.launcher.workspace import Workspace
from triton_diffusers.util.hosts import url_host

_TRANSLATOR_DIR = "TRITON_DIFFUSERS_TRANSLATOR_DIR"
_CONTROL = "model-repository,shared-memory,trace,logging"
_FORWARDING = tuple(
    f"--{protocol}-header-forward-pattern=(?i)^{header}$"
    for protocol, header in zip(("http", "grpc"), FORWARDED_HEADERS, strict=True)
)


def server_command(
    options: ServeOptions, repository: Repository, runtime: TritonRuntime, ports: Ports, workspace: Workspace
) -> list[str]:
    """Return the command line of tritonserver."""
    http_address = f"ipv6:{options.host}" if ":" in options.host else options.host  # libevhtp's way to say so
    return [
        str(runtime.binary),
        f"--model-repository={workspace.plain(repository.root)}",
        f"--backend-directory={runtime.backends}",
        # Needed to reload a dead model.
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in repository.models),
        # Our configurations are complete; completing them would start every model process twice.
        "--disable-auto-complete-config",
        f"--backend-config=python,shm-region-prefix-name={workspace.region_prefix}",
        f"--http-address={http_address}",
        f"--grpc-address={url_host(options.host)}",
        f"--metrics-address={http_address}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={options.exit_timeout}",
        # Callers must not unload models, map the server's memory or read its traces.
        f"--http-restricted-api={_CONTROL}:{CONTROL_HEADER}={workspace.control_key}",
        f"--grpc-restricted-protocol={_CONTROL}:{CONTROL_HEADER}={workspace.control_key}",
        *(_FORWARDING if _forwards_headers(options) else ()),
        *options.extra_arguments,
    ]


def model_settings(options: ServeOptions, model_dir: Path, workspace: Workspace) -> Mapping[str, str]:
    """Return the settings that ``serve`` adds to those in the environment, as environment variables."""
    settings = {
        "TRITON_DIFFUSERS_MODEL_DIR": str(model_dir),
        "TRITON_DIFFUSERS_RUNTIME_DIR": str(workspace.runtime_dir),
    }
    if options.translator_dir is not None and not os.environ.get(_TRANSLATOR_DIR):
        settings[_TRANSLATOR_DIR] = str(options.translator_dir)
    if options.store is not None:
        settings["TRITON_DIFFUSERS_STORE"] = options.store
    if _forwards_headers(options):
        settings["TRITON_DIFFUSERS_HEADERS_FORWARDED"] = "true"
    return settings


def _forwards_headers(options: ServeOptions) -> bool:
    """Return True unless the operator has said which headers Triton passes on to the models."""
    return not any("header-forward-pattern" in argument for argument in options.extra_arguments)
