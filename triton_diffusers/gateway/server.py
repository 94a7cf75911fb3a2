"""Running a gateway: its table, its results, its HTTP server."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from functools import partial

import uvicorn

from triton_diffusers.gateway.access.authenticator import Authenticator
from triton_diffusers.gateway.access.store import AccessStore
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.dialects.eas.tokens import is_signed_with, service_caller
from triton_diffusers.gateway.h11_protocol import limited_protocol
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store as open_job_store
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.metrics import JobMetrics
from triton_diffusers.gateway.results import Results
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.settings import GATEWAY_PREFIX, GatewaySettings
from triton_diffusers.gateway.signing import UrlSigner, signing_key
from triton_diffusers.gateway.socket_protocol import SocketProtocol
from triton_diffusers.gateway.webhooks.sender import WebhookSender
from triton_diffusers.gateway.webhooks.signature import WebhookSigner
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage import open_store
from triton_diffusers.storage.protocol import ResultStore
from triton_diffusers.util.backoff import backoff
from triton_diffusers.util.hosts import is_loopback, url_host
from triton_diffusers.util.notice import NOTICE

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 10.0
_MAX_HEADER_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 64 * 1024  # of a WebSocket's caller, who has nothing to say
_NO_USER = (
    "there is no user yet, so nobody can use this gateway. Make the first one with 'triton-diffusers users add NAME"
    ' --role admin\', or within a day, once, with: curl %s/api/setup --json \'{"code": "%s", "name": "admin"}\''
)
_ANY_HOST = (
    "the gateway answers for every host name, so that pages in browsers of this network can reach it by names of their"
    " own (DNS rebinding); name its hosts in %sALLOWED_HOSTS"
)
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def run_gateway(host: str, port: int, settings: GatewaySettings, limits: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises: SettingsError. OSError: the address cannot be listened on."""
    listener = _listen(host, port)
    service = make_service(settings, limits, is_open=is_open(host, settings))
    config = server_config(service, host)
    address = f"http://{url_host(host)}:{listener.getsockname()[1]}"
    logger.log(NOTICE, "the gateway listens on %s", address)
    if settings.open and not is_loopback(host):
        logger.warning("open: everybody who reaches %s can draw, read and cancel while there is no user", address)
    if not is_open(host, settings) and (code := service.accounts.new_setup_code()) is not None:
        logger.warning(_NO_USER, settings.public_url or address, code)
    warn_of_any_host(host, settings)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def is_open(host: str, settings: GatewaySettings) -> bool:
    """Return True if a gateway that listens on ``host`` lets everybody in while there is no user."""
    return settings.open or is_loopback(host)


def warn_of_any_host(host: str, settings: GatewaySettings) -> None:
    """Log a warning if the gateway answers for host names that are not its own, where others can reach it."""
    if not settings.allowed_hosts and not is_loopback(host):
        logger.warning(_ANY_HOST, GATEWAY_PREFIX)


def server_config(service: Service, host: str) -> uvicorn.Config:
    """Return the configuration of a server that listens on ``host``."""
    settings = service.settings
    hosts = settings.allowed_hosts or ((*_LOOPBACK_NAMES, host) if is_loopback(host) else ())
    return uvicorn.Config(
        create_app(service, hosts),
        http=limited_protocol(settings.header_seconds, settings.read_seconds),
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        ws=SocketProtocol,
        ws_max_size=_MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=_STOP_SECONDS,
        server_header=False,
        log_config=None,
    )


def make_service(settings: GatewaySettings, limits: Settings, *, is_open: bool) -> Service:
    """Return a service on the job table and the result store of the settings; ``is_open``: see ``Authenticator``.

    Raises: SettingsError.
    """
    try:
        key = signing_key(settings.secret, settings.state_dir.expanduser())
    except OSError as error:
        raise SettingsError(f"state_dir: {str(settings.state_dir)!r} is invalid: {error.strerror}") from error
    results = Results(required_store(limits), UrlSigner(key, settings.url_seconds))
    table = open_table(settings)
    return Service(
        table=table,
        results=results,
        limits=limits,
        settings=settings,
        metrics=JobMetrics(),
        authenticator=Authenticator(
            table,
            is_open=is_open,
            any_address=settings.open,
            max_failures_per_minute=settings.max_failed_attempts,
            check_signature=is_signed_with,
            service_caller=partial(service_caller, settings),
        ),
        accounts=AccessStore(table.store.database),
        webhooks=WebhookSender(GuardedClient(limits), settings.webhook_seconds),
        webhook_signer=WebhookSigner(key),
    )


def open_table(settings: GatewaySettings) -> JobTable:
    """Return the job table of the settings, as soon as its server can be reached.

    Raises: SettingsError: the URL is invalid, or its file cannot be used.
    """
    url = settings.database_url
    attempt = 0
    while True:
        try:
            return JobTable(open_job_store(url, JobTableSettings()))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        except (OSError, TableUnavailable) as error:
            if url.startswith("sqlite:"):
                raise SettingsError(f"{GATEWAY_PREFIX}DATABASE: {url!r} is invalid: {error}") from error
            logger.warning("waiting for the job table: %s", error)
            time.sleep(backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True))
            attempt += 1


def required_store(limits: Settings) -> ResultStore:
    """Return the result store. Raises ``SettingsError``, also if there is none: jobs keep their images there."""
    store = open_store(limits)
    if store is None:
        raise SettingsError(f"{PREFIX}STORE: '' is invalid: jobs need a result store")
    return store


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
