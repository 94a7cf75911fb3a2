"""``triton-diffusers serve``: check → assemble → start → wait → watch → stop → clean up."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType
from typing import Any

from triton_diffusers.api.contract import CONTRACTS, FORWARDED_HEADERS
from triton_diffusers.checkpoints.layout import FILE_SUFFIXES, has_base_model
from triton_diffusers.downloads import SourceError, is_remote, resolve_model_dir
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.launcher.endpoint import CONTROL_HEADER, TritonEndpoint
from triton_diffusers.launcher.engine_processes import EngineProcesses
from triton_diffusers.launcher.errors import BadOption, ModelDirectoryMissing, StartFailed
from triton_diffusers.launcher.logs import ServerOutput
from triton_diffusers.launcher.options import LEFT_OUT, ServeOptions
from triton_diffusers.launcher.ports import Ports, choose_ports, is_loopback, reachable_host, url_host
from triton_diffusers.launcher.probe import Health, Probe
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.launcher.runtime import TritonRuntime, find_runtime
from triton_diffusers.launcher.service import service_beside
from triton_diffusers.launcher.tritonserver import TritonServer
from triton_diffusers.launcher.watchdog import Watchdog, WatchTimes, when
from triton_diffusers.launcher.workspace import Workspace, sweep
from triton_diffusers.settings import Settings, SettingsError

log = logging.getLogger(__name__)

_TICK = 0.2  # seconds between looks at the server while it starts
_STILL_LOADING = 30.0  # seconds between lines that say so
_LAST_WORDS = 5.0  # seconds that a server which has closed a connection has to end
_FIRST_ANSWER = 60.0  # seconds that a freshly loaded model has for its first probe
_MAX_DELAY_AFTER_SERVING = 2.0  # seconds until a server that died while it served is started again
_TRANSLATOR_DIR = "TRITON_DIFFUSERS_TRANSLATOR_DIR"
_CONTROL = "model-repository,shared-memory,trace,logging"
_FORWARDING = tuple(
    f"--{protocol}-header-forward-pattern=(?i)^{header}$"
    for protocol, header in zip(("http", "grpc"), FORWARDED_HEADERS, strict=True)
)


@dataclass(frozen=True, slots=True)
class _End:
    """End of a server: the seconds that it served, and the reason."""

    served: float
    failure: str


class StopRequest:
    """Stop requests, by signals that this context manager takes over."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.on_stop: Callable[[], None] = lambda: None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        self.on_stop()

    def wait(self, seconds: float) -> None:
        """Wait for a stop request, at most ``seconds``."""
        end = time.monotonic() + seconds
        while not self.is_made and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TICK))

    @property
    def is_made(self) -> bool:
        """True if a stop was requested."""
        return bool(self.signals)

    @property
    def is_urgent(self) -> bool:
        """True if a stop was requested twice."""
        return len(self.signals) > 1


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
        delay = min(times.delay(troubles), _MAX_DELAY_AFTER_SERVING) if served else times.delay(troubles)
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
    if _wait_until_ready(server, endpoint, repository, engines, stop):
        ready = time.monotonic()
        _announce(options, ports, repository, workspace, ready - begun)
        watchdog = Watchdog(repository, endpoint, workspace.region_prefix, times)
        if options.watch:
            watchdog.start()
        fault = ""
        while not (stop.is_made or fault or server.wait(_TICK)):
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


def fetch_model_dir(source: str) -> Path:
    """Return the local model directory of a path or URL; see ``triton_diffusers.downloads``.

    Raises:
        ModelDirectoryMissing: it cannot be fetched.
        BadOption: a setting cannot be read.
    """
    if not is_remote(source):
        return Path(source)
    try:
        return resolve_model_dir(source, Settings.read())
    except SourceError as error:
        raise ModelDirectoryMissing(str(error)) from error
    except SettingsError as error:
        raise BadOption(str(error)) from error


def check_model_dir(path: Path) -> Path:
    """Return the model directory, absolute.

    Raises:
        ModelDirectoryMissing: there is none, or neither a base model is in it nor is it one itself.
    """
    if not path.exists():
        raise ModelDirectoryMissing(f"there is no model directory at {path}; name one with --model-dir")
    if not has_base_model(path):
        raise ModelDirectoryMissing(
            f"{path} is not a model: expected a folder with base_model/ or model_index.json in it, or one "
            f"{' or '.join(FILE_SUFFIXES)} file"
        )
    return path.absolute()


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


def _store(options: ServeOptions) -> str:
    """Return the result store: a URL, or a directory's absolute path; empty for none."""
    store = Settings.read().store if options.store is None else options.store
    return store if not store or "://" in store else str(Path(store).expanduser().absolute())


def _wait_until_ready(
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
    begun = said = time.monotonic()
    while not endpoint.is_ready():
        if stop.is_made:
            return False
        if engines.failure:
            raise StartFailed(f"tritonserver did not start: {engines.failure}")
        if server.wait(_TICK):
            # A model whose engine cannot be loaded ends the server, with the same reason among Triton's words.
            raise StartFailed(f"tritonserver did not start: {engines.failure or server.failure()}")
        if time.monotonic() - said > _STILL_LOADING:
            said = time.monotonic()
            log.info("still loading models after %.0f s", said - begun)
    for model in repository.watched:
        try:
            _probe_once(endpoint, model, stop)
        except OSError as error:  # a request that crashes the server can come as soon as it listens
            if not server.wait(_LAST_WORDS):
                log.warning("model %s could not be probed: %s", model.name, error)
        if server.exit_code is not None:
            raise StartFailed(f"tritonserver did not start: {server.failure()}")
    return not stop.is_made


def _probe_once(endpoint: TritonEndpoint, model: Model, stop: StopRequest) -> None:
    """Wait for the answer to a model's first probe, and log what is wrong with it. Raises OSError without a server."""
    probe = Probe(endpoint, model.name, model.probe or {})
    answer = None
    try:
        while answer is None and probe.age < _FIRST_ANSWER and not stop.is_made:
            answer = probe.wait(_TICK)
    finally:
        probe.close()
    if answer is None and not stop.is_made:
        log.warning("model %s has not answered its first probe in %.0f s", model.name, _FIRST_ANSWER)
    elif answer is not None and answer.health is not Health.WELL:
        log.warning("model %s answers its first probe with: %s", model.name, answer.text)


def _calls(http: str, repository: Repository, model_dir: Path) -> Iterator[str]:
    """Yield commands for people to try. A call that names a ControlNet needs it in the model directory."""
    for model in repository.entrances:
        if model.example is None or not all(
            (model_dir / path).exists() for path in model.example.get("controlnet_path", ())
        ):
            continue
        yield f"curl {http}/v2/models/{model.name}/generate -d {shlex.quote(json.dumps(model.example))}"


def _announce(
    options: ServeOptions, ports: Ports, repository: Repository, workspace: Workspace, seconds: float
) -> None:
    """Print the addresses, and write them to ``endpoints.json`` for programs."""
    host = url_host(reachable_host(options.host))
    http = f"http://{host}:{ports.http}"
    grpc = f"{host}:{ports.grpc}"
    metrics = f"http://{host}:{ports.metrics}/metrics"
    workspace.publish(
        {"pid": os.getpid(), "http": http, "grpc": grpc, "metrics": metrics, CONTROL_HEADER: workspace.control_key}
    )
    lines = [f"Triton Diffusers is ready after {seconds:.1f} s (Ctrl-C stops it): {', '.join(repository.models)}"]
    lines += [f"  {call}" for call in _calls(http, repository, Path(options.model_dir))]
    lines.append(f"  HTTP {http}, gRPC {grpc}, metrics {metrics}")
    lines.append(f"  results: {_store(options) or 'not stored'}, log: {options.log_file or 'not kept'}")
    print("\n".join(lines), flush=True)
