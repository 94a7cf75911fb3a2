"""One delivery of a message over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import httpcore2

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.links.transport import Deadline
from triton_diffusers.links.url import LinkRefused, Target

logger = logging.getLogger(__name__)

FIELD = "webhook.url"

_MAX_ANSWER_BYTES = 16 * 1024
_GONE = 410
_NO_SCHEMES = "this server calls no webhooks"
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an attempt: the receiver's status (0: no answer), and the error unless it took the message.

    A receiver that is ``gone`` wants no more; another may have asked for a pause of ``retry_after`` seconds.
    """

    status: int = 0
    error: str = ""
    gone: bool = False
    retry_after: float = 0.0


class WebhookSender:
    """Posts messages to the hosts that links may lead to. Usable from any thread."""

    def __init__(self, client: GuardedClient, seconds: float) -> None:
        self._client = client
        self.seconds = seconds

    def target_of(self, url: str) -> Target:
        """Return the target of a webhook's URL. Raises ``InvalidRequest`` if messages may not be sent there."""
        try:
            target = self._client.parse(url, without_schemes=_NO_SCHEMES)
            self._client.check_address(target)
        except LinkRefused as error:
            raise InvalidRequest(FIELD, url, error.limit) from error
        return target

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Post a message. Redirects are not followed: a receiver has one address, which the message was made for."""
        deadline = Deadline(self.seconds)
        try:
            target = self._client.parse(url, without_schemes=_NO_SCHEMES)
            return self._client.request("POST", target, {**headers, **_HEADERS}, deadline, _outcome, body=body)
        except LinkRefused as error:
            return Outcome(error=error.limit)
        except httpcore2.TimeoutException:
            return Outcome(error=f"no answer within {self.seconds:g} seconds")
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            logger.info("webhook: no answer of %r: %r", target.host_name, error)
            return Outcome(error="no connection, or no proper answer")


def _outcome(response: httpcore2.Response) -> Outcome:
    """Return the outcome of a response. Of its body only the beginning is read, and nothing of it is used."""
    status = response.status
    size = 0
    for chunk in response.iter_stream():
        size += len(chunk)
        if size > _MAX_ANSWER_BYTES:
            break
    if 200 <= status < 300:
        return Outcome(status=status)
    error = f"status {status}"
    if 300 <= status < 400:
        error += ": redirects are not followed"
    return Outcome(status=status, error=error, gone=status == _GONE, retry_after=_retry_after(response))


def _retry_after(response: httpcore2.Response) -> float:
    headers = {name.lower(): value for name, value in response.headers}
    text = headers.get(b"retry-after", b"").strip()
    return float(text) if text.isdigit() and len(text) < 10 else 0.0
