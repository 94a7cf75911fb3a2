"""One call of a queue: the service, the caller, the parameters."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from triton_diffusers.gateway.access.caller import Caller, caller_of
from triton_diffusers.gateway.dialects.eas.parameters import Parameters
from triton_diffusers.gateway.dialects.eas.signature import is_authorized, is_digest_of
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.settings import NamedService

USER_HEADER = "X-EAS-QueueService-Redis-Uid"
GROUP_HEADER = "X-EAS-QueueService-Redis-Gid"
PRIORITY_HEADER = "X-EAS-QueueService-Redis-Priority"

_DEFAULT_GROUP = "eas"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCall:
    """A call of the queues of an asynchronous service."""

    connection: HTTPConnection
    service: Service
    name: str
    named: NamedService
    caller: Caller

    @property
    def table(self) -> JobTable:
        """Return the job table."""
        return self.service.table

    @property
    def parameters(self) -> Parameters:
        """Return the query parameters."""
        return Parameters(self.connection.query_params)

    @property
    def owner(self) -> str:
        """Return the owner of the caller's jobs."""
        return self.caller.owner

    @property
    def sink(self) -> str:
        """Return the name of the service's sink in the table; each owner has one."""
        return f"{self.owner}/{self.name}"

    @property
    def group(self) -> str:
        """Return the caller's group of consumers."""
        return self.connection.headers.get(GROUP_HEADER) or _DEFAULT_GROUP

    @property
    def consumer(self) -> str:
        """Return the caller's name in its group."""
        return self.connection.headers.get(USER_HEADER) or "anonymous"


def open_call(connection: HTTPConnection, service: Service, name: str) -> QueueCall:
    """Return a call of a queue. Raises ``Refused``: the caller may not use it, or the service has no queues."""
    named = authorized_service(connection, service, name)
    if named.mode != "async":
        message = f"service: {name[:80]!r} is invalid: it is synchronous, so it has no queues"
        raise Refused(Fault(status=404, message=message, field="service"))
    return QueueCall(connection=connection, service=service, name=name, named=named, caller=caller_of(connection))


def authorized_service(connection: HTTPConnection, service: Service, name: str) -> NamedService:
    """Return the service of a name. Raises ``Refused`` unless the caller has a key, or shows the service's token."""
    named = service.settings.service(name)
    method, path = connection.scope.get("method", "GET"), connection.scope["path"]
    needs_token = bool(named.token) and not caller_of(connection).key_id
    if needs_token and not is_authorized(named.token, method=method, path=path, headers=connection.headers):
        raise Refused(Fault(status=401, code=401, message="Authorization: it is not the token of this service"))
    return named


def check_digest(connection: HTTPConnection, body: bytes) -> None:
    """Raise ``Refused`` unless a body is the one that its ``Content-MD5`` was made of."""
    given = connection.headers.get("content-md5")
    if given and not is_digest_of(given, body):
        message = f"Content-MD5: {given[:80]!r} is invalid: it is not that of the body"
        raise Refused(Fault(status=400, message=message, field="Content-MD5"))
