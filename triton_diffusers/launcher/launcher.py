"""``triton-diffusers serve``: check → assemble → start → wait → watch → stop → clean up."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.downloads import is_remote
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.launcher.announcement import announce
from triton_diffusers.launcher.command import model_settings, server_command
from triton_diffusers.launcher.endpoint import TritonEndpoint
from triton_diffusers.launcher.engine_processes import EngineProcesses
from triton_diffusers.launcher.errors import BadOption, StartFailed
from triton_diffusers.launcher.logs import ServerOutput
from triton_diffusers.launcher.model_dir import check_model_dir, discard_artifacts, fetch_model_dir
from triton_diffusers.launcher.options import LEFT_OUT, ServeOptions
from triton_diffusers.launcher.ports import Ports, choose_ports
from triton_diffusers.launcher.readiness import wait_until_ready
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.runtime import find_runtime
from triton_diffusers.launcher.service import service_beside
from triton_diffusers.launcher.stop import StopRequest
from triton_diffusers.launcher.tritonserver import TritonServer
from triton_diffusers.launcher.watchdog import Watchdog, WatchTimes, when
from triton_diffusers.launcher.workspace import Workspace, sweep
from triton_diffusers.settings import Settings, SettingsError
from triton_diffusers.util.hosts import is_loopback, reachable_host

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_MAX_RESTART_SECONDS = 2.0  # until a server that died while it served is started again


@dataclass(frozen=True, slots=True)
class _End:
    """End of a server: the seconds that it served, and the reason."""

    served: float
    failure: str


def serve(options: ServeOptions) -> int:
    """Serve until stopped, and return the exit code.

    It is 0 after a stop, 128 + signal after a forced one, and 1 if Triton has died and is not watched. Call from the
    main thread: it takes over the signals.

    Raises:
        LaunchError: it could not be started; nothing is left running.
    """
    for line in Settings.unknown(os.environ):
        log.warning("%s", line)
    _check_settings()
    if not is_loopback(options.host):
        log.warning(
            "--host %s opens Triton's ports to other machines: whoever reaches them can end the server and see and"
            " cancel everybody's jobs; let only a trusted proxy reach them",
            options.host,
        )
    repository = Repository.read(options.model_repository.absolute()).without(LEFT_OUT[options.func_name])
    if is_remote(options.model_dir):
        _check_host(options)
    model_dir = check_model_dir(fetch_model_dir(options.model_dir))  # before the signals are ours: Ctrl-C ends it
    if options.discard_artifacts:
        discard_artifacts(model_dir)
    with StopRequest() as stop:
        ports = _choose_ports(options)
        if removed := sweep():
            log.info("removed what %d killed server(s) had left behind", removed)
        given = os.environ.get("TRITON_DIFFUSERS_RUNTIME_DIR")
        with Workspace.create(Path(given) if given else None) as workspace:
            runtime = find_runtime(workspace.root, chosen=options.tritonserver)
            log.info("starting tritonserver (%s) with %s", runtime.origin, model_dir)
            command = server_command(options, repository, runtime, ports, workspace)
            settings = model_settings(options, model_dir, workspace)
            environment = {**runtime.environment, **settings}

            def start() -> TritonServer:
                return TritonServer(
                    command,
                    environment,
                    region_prefix=workspace.region_prefix,
                    inherited=workspace.lock,
                    on_line=ServerOutput(),
                )

            times = WatchTimes(hang=options.hang_timeout)
            options = _with_ports(replace(options, model_dir=str(model_dir)), ports)
            with (
                EngineProcesses(repository, settings, options.hang_timeout) as engines,
                service_beside(options, workspace.runtime_dir) as service,
            ):
                stop.on_stop = service.drain
                if not service.has_gateway:
                    ports = replace(ports, gateway=None)
                return _keep_running(start, options, ports, repository, workspace, engines, stop, times)


def _choose_ports(options: ServeOptions) -> Ports:
    return choose_ports(
        options.host,
        http=options.http_port,
        grpc=options.grpc_port,
        metrics=options.metrics_port,
        gateway=options.gateway_port,
    )


def _with_ports(options: ServeOptions, ports: Ports) -> ServeOptions:
    return replace(
        options,
        http_port=ports.http,
        grpc_port=ports.grpc,
        metrics_port=ports.metrics,
        gateway_port=ports.gateway,
        ephemeral=not options.http_port,
    )


def _keep_running(
    start: Callable[[], TritonServer],
    options: ServeOptions,
    ports: Ports,
    repository: Repository,
    workspace: Workspace,
    engines: EngineProcesses,
    stop: StopRequest,
    times: WatchTimes,
) -> int:
    """Start tritonserver, and start it again when it dies; see ``serve``.

    It does die: some malformed requests crash it, and a model process that is killed while it holds a lock in the
    shared memory takes Triton with it. Once a server has served, another one is started however often it dies:
    whoever sends such requests must not be able to end the service for good.
    """
    troubles = 0  # since the last calm time
    has_served = False
    while True:
        server = start()
        try:
            end = _run(server, options, ports, repository, workspace, engines, stop, times)
            if end is None:
                return 128 + stop.signals[-1] if stop.is_urgent else 0
            served, failure = end.served, end.failure
        except StartFailed as error:
            if not has_served:
                if options.log_file is not None:
                    log.info("the full log is in %s", options.log_file)
                raise
            served, failure = 0.0, str(error)
        finally:
            server.kill()
        has_served = True
        if not options.watch:
            log.error("tritonserver has ended: %s", failure)
            return 1
        if served > times.calm:
            troubles = 0
        delay = min(times.delay(troubles), _MAX_RESTART_SECONDS) if served else times.delay(troubles)
        troubles += 1
        log.error("tritonserver is started again %s: %s", when(delay), failure)
        workspace.remove_shared_memory()
        stop.wait(delay)
        if stop.is_made:
            return 0


def _run(
    server: TritonServer,
    options: ServeOptions,
    ports: Ports,
    repository: Repository,
    workspace: Workspace,
    engines: EngineProcesses,
    stop: StopRequest,
    times: WatchTimes,
) -> _End | None:
    """Wait until the server ends, or a model dies whose requests only the server's end can answer.

    Returns None if the end was asked for. Loading is not serving: a server that crashes whenever it has loaded its
    models has had no calm time.
    """
    begun = time.monotonic()
    endpoint = TritonEndpoint(reachable_host(options.host), ports.http, ports.grpc, workspace.control_key)
    if wait_until_ready(server, endpoint, repository, engines, stop):
        ready = time.monotonic()
        announce(options, ports, repository, workspace, ready - begun)
        watchdog = Watchdog(repository, endpoint, workspace.region_prefix, times)
        if options.watch:
            watchdog.start()
        fault = ""
        while not (stop.is_made or fault or server.wait(_TICK_SECONDS)):
            fault = watchdog.fault
        served = time.monotonic() - ready
        watchdog.stop()
        if not stop.is_made:
            return _End(served, fault or server.failure())
    log.info("stopping; requests in flight have %d s", options.exit_timeout)
    with _idleness(repository, workspace) as is_idle:
        server.stop(options.exit_timeout, lambda: stop.is_urgent, is_idle)
    log.info("stopped")
    return None


@contextlib.contextmanager
def _idleness(repository: Repository, workspace: Workspace) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True if no request is known to be in flight; it is never True with other models."""
    board: JobBoard | None = None
    if repository.models.keys() <= CONTRACTS.keys():
        with contextlib.suppress(OSError, sqlite3.Error):  # it only shortens a stop
            board = JobBoard(workspace.runtime_dir)
    try:
        yield lambda: board is not None and not board.has_requests()
    finally:
        if board is not None:
            board.close()


def _check_settings() -> None:
    """Raise ``BadOption`` for an invalid setting."""
    try:
        Settings.read()
    except SettingsError as error:
        raise BadOption(str(error)) from error


def _check_host(options: ServeOptions) -> None:
    """Check ports and runtime before a model directory of gigabytes is fetched."""
    _choose_ports(options)
    with TemporaryDirectory() as scratch:
        find_runtime(Path(scratch), chosen=options.tritonserver)
