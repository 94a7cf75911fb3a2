"""Announcement of a server that is ready: its addresses, and calls to try."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from triton_diffusers.launcher.endpoint import CONTROL_HEADER
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.ports import Ports
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.workspace import Workspace
from triton_diffusers.settings import Settings
from triton_diffusers.util.hosts import reachable_host, url_host

_JOB = {"prompt": "a red apple"}


def _calls(http: str, repository: Repository, model_dir: Path) -> Iterator[str]:
    """Yield commands for people to try. A call that names a ControlNet needs it in the model directory."""
    for model in repository.entrances:
        if model.example is None or not all(
            (model_dir / path).exists() for path in model.example.get("controlnet_path", ())
        ):
            continue
        yield f"curl {http}/v2/models/{model.name}/generate -d {shlex.quote(json.dumps(model.example))}"


def announce(options: ServeOptions, ports: Ports, repository: Repository, workspace: Workspace, seconds: float) -> None:
    """Print the addresses, and write them to ``endpoints.json`` for programs."""
    host = url_host(reachable_host(options.host))
    http = f"http://{host}:{ports.http}"
    grpc = f"{host}:{ports.grpc}"
    metrics = f"http://{host}:{ports.metrics}/metrics"
    gateway = "" if ports.gateway is None else f"http://{host}:{ports.gateway}"
    endpoints: dict[str, str | int] = {"pid": os.getpid(), "http": http, "grpc": grpc, "metrics": metrics}
    if gateway:
        endpoints["gateway"] = gateway
    workspace.publish({**endpoints, CONTROL_HEADER: workspace.control_key})
    lines = [f"Triton Diffusers is ready after {seconds:.1f} s (Ctrl-C stops it): {', '.join(repository.models)}"]
    lines += [f"  {call}" for call in _calls(http, repository, Path(options.model_dir))]
    if gateway:
        lines.append(f"  curl '{gateway}/api/jobs?wait=60' -d {shlex.quote(json.dumps(_JOB))}")
    lines.append(f"  {f'gateway {gateway}, ' if gateway else ''}HTTP {http}, gRPC {grpc}, metrics {metrics}")
    lines.append(f"  results: {_store(options) or 'not stored'}, log: {options.log_file or 'not kept'}")
    print("\n".join(lines), flush=True)


def _store(options: ServeOptions) -> str:
    """Return the result store: a URL, or a directory's absolute path; empty for none."""
    store = Settings.read().store if options.store is None else options.store
    return store if not store or "://" in store else str(Path(store).expanduser().absolute())
