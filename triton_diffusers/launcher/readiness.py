"""Readiness of a server that starts: every model is loaded and answers its probe."""

from __future__ import annotations

import logging
import time

from triton_diffusers.launcher.endpoint import TritonEndpoint
from triton_diffusers.launcher.engine_processes import EngineProcesses
from triton_diffusers.launcher.errors import StartFailed
from triton_diffusers.launcher.probe import Health, Probe
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.launcher.stop import StopRequest
from triton_diffusers.launcher.tritonserver import TritonServer

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_LOADING_NOTICE_SECONDS = 30.0  # between lines that say so
_EXIT_SECONDS = 5.0  # that a server which has closed a connection has to end
_FIRST_PROBE_SECONDS = 60.0  # that a freshly loaded model has to answer


def wait_until_ready(
    server: TritonServer,
    endpoint: TritonEndpoint,
    repository: Repository,
    engines: EngineProcesses,
    stop: StopRequest,
) -> bool:
    """Wait until every model is loaded and has answered its probe; False if we were told to stop first.

    Raises:
        StartFailed: the server ended, or no engine can be loaded; carries the reason.
    """
    begun = noticed = time.monotonic()
    while not endpoint.is_ready():
        if stop.is_made:
            return False
        if engines.failure:
            raise StartFailed(f"tritonserver did not start: {engines.failure}")
        if server.wait(_TICK_SECONDS):
            # A model whose engine cannot be loaded ends the server, with the same reason among Triton's words.
            raise StartFailed(f"tritonserver did not start: {engines.failure or server.failure()}")
        if time.monotonic() - noticed > _LOADING_NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("still loading models after %.0f s", noticed - begun)
    for model in repository.watched:
        try:
            _probe_once(endpoint, model, stop)
        except OSError as error:  # a request that crashes the server can come as soon as it listens
            if not server.wait(_EXIT_SECONDS):
                log.warning("model %s could not be probed: %s", model.name, error)
        if server.exit_code is not None:
            raise StartFailed(f"tritonserver did not start: {server.failure()}")
    return not stop.is_made


def _probe_once(endpoint: TritonEndpoint, model: Model, stop: StopRequest) -> None:
    """Wait for the answer to a model's first probe, and log what is wrong with it. Raises OSError without a server."""
    probe = Probe(endpoint, model.name, model.probe or {})
    answer = None
    try:
        while answer is None and probe.age < _FIRST_PROBE_SECONDS and not stop.is_made:
            answer = probe.wait(_TICK_SECONDS)
    finally:
        probe.close()
    if answer is None and not stop.is_made:
        log.warning("model %s has not answered its first probe in %.0f s", model.name, _FIRST_PROBE_SECONDS)
    elif answer is not None and answer.health is not Health.WELL:
        log.warning("model %s answers its first probe with: %s", model.name, answer.text)
