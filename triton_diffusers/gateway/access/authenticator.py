"""Authentication: from a request's credentials to its caller."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import Scope

from triton_diffusers.gateway.access.caller import LOCAL, Caller
from triton_diffusers.gateway.access.failures import FailedAttempts
from triton_diffusers.gateway.access.keys import Credentials, credentials_of, digest, is_same, key_id_of
from triton_diffusers.gateway.access.logins import Login, Logins
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.util.cache import LruCache, one

UNAUTHORIZED: Final = 401

CheckSignature = Callable[[str, Scope, str], bool]
"""Returns True if a signature of a request was made with a secret: ``check(secret, scope, signature)``."""

_MAX_PROVED = 10_000
_UNKNOWN = "key: it is unknown, expired or revoked"


ServiceCaller = Callable[[HTTPConnection], Caller | None]
"""Returns the caller of a request that shows the token of the service that it is for."""


def no_service(connection: HTTPConnection) -> None:
    """Return None: no service has a token."""


def no_signature(secret: str, scope: Scope, signature: str) -> bool:
    """Return False: no request is signed where no dialect knows signatures."""
    return False


class Authenticator:
    """Finds out who calls, by the keys in the job table's database; they are looked up for each request.

    ``is_open`` lets everybody in as the local owner for as long as there is no user: from ``any_address``, or only from
    this machine, which a proxy in front of a gateway on loopback is not if it says for whom it asks.
    """

    def __init__(
        self,
        table: JobTable,
        *,
        is_open: bool,
        any_address: bool = False,
        max_failures_per_minute: int = 30,
        check_signature: CheckSignature = no_signature,
        service_caller: ServiceCaller = no_service,
    ) -> None:
        self._table = table
        self._logins = Logins(table.store.database)
        self._is_open, self._any_address = is_open, any_address
        self._check_signature = check_signature
        self._service_caller = service_caller
        self._has_users = False
        self.failures = FailedAttempts(max_failures_per_minute)
        # Keys that were right once: an address from which somebody guesses locks nobody else out.
        self._proved: LruCache[str, bool] = LruCache(_MAX_PROVED, one)

    async def authenticate(self, connection: HTTPConnection) -> Caller:
        """Return the caller of a request. Raises: Refused: there is none. TableUnavailable."""
        address = connection.client.host if connection.client else ""
        let_in = self._is_open and (self._any_address or _is_this_machine(address))
        if let_in and not await self.has_users():
            return LOCAL
        credentials = credentials_of(connection.headers)
        if credentials is None:
            raise unauthorized("key: it is missing; send it as 'Authorization: Bearer <key>'")
        if (seconds := self.failures.wait_seconds(address)) and self._proved.get(digest(credentials.key)) is None:
            raise too_many_failures(seconds)
        login = await self._login(credentials, connection.scope)
        if login is None and (caller := self._service_caller(connection)) is not None:
            return caller
        if login is None:
            self.failures.add(address)
            raise unauthorized(_UNKNOWN)
        if credentials.key:
            self._proved.put(digest(credentials.key), True)
        if login.is_stale:
            await self._table.call(self._logins.used, login.caller.key_id)
        return login.caller

    async def has_users(self) -> bool:
        """Return True if there is a user; from then on there always is one."""
        if not self._has_users:
            self._has_users = await self._table.call(self._logins.has_users)
        return self._has_users

    async def _login(self, credentials: Credentials, scope: Scope) -> Login | None:
        if credentials.signature:
            for signing in await self._table.call(self._logins.signing):
                if self._check_signature(signing.secret, scope, credentials.signature):
                    return signing
            return None
        login: Login | None = await self._table.call(self._logins.find, key_id_of(credentials.key))
        # Compared also where there is nothing to compare with, so that time does not tell which keys exist.
        right = is_same(digest(credentials.key), login.digest if login else digest(""))
        of_user = login is not None and credentials.user in ("", login.caller.user)
        return login if right and of_user else None


def _is_this_machine(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address == ""  # a Unix socket
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def unauthorized(message: str) -> Refused:
    """Return the refusal of a request without a valid key."""
    return Refused(Fault(status=UNAUTHORIZED, code=UNAUTHORIZED, message=message))


def too_many_failures(seconds: float) -> Refused:
    """Return the refusal of an address that has failed too often."""
    message = "key: too many failed attempts from this address; try again later"
    return Refused(Fault(status=429, message=message, retry_after=math.ceil(seconds)))
