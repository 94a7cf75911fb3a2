"""Settings of clients: where the server is, and how it is spoken to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from triton_diffusers_client.address import Address
from triton_diffusers_client.attempts import Attempts, checked_timeout
from triton_diffusers_client.errors import ClientError, InvalidRequestError
from triton_diffusers_client.gateway.session import Session
from triton_diffusers_client.headers import make_headers
from triton_diffusers_client.progress import JobState
from triton_diffusers_client.request import Request

if TYPE_CHECKING:
    from triton_diffusers_client.triton.backend import TritonBackend

DEFAULT_URL = "http://127.0.0.1:8080"
# An hour: fifty steps of a large model on a CPU, behind others, take their time.
DEFAULT_TIMEOUT = 3600.0
# About 40 seconds with their pauses, in which a server restarts a dead model process.
DEFAULT_RETRIES = 8
DEFAULT_LIMIT = 100

URL_VARIABLE = "TRITON_DIFFUSERS_URL"
API_KEY_VARIABLE = "TRITON_DIFFUSERS_API_KEY"


def make_session(
    url: str | None,
    timeout: float | None,
    retries: int,
    api_key: str | None,
    headers: Mapping[str, str] | None,
) -> Session:
    """Return the session of a client's arguments; the environment has the others. Raises ``ValueError``."""
    address = Address.parse(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    if not api_key and "authorization" not in {name.lower() for name in headers or ()}:
        api_key = os.environ.get(API_KEY_VARIABLE)
    return Session(address, make_headers(headers, api_key), Attempts(checked_timeout(timeout), retries))


def triton_backend(session: Session) -> TritonBackend:
    """Return the backend for a Triton. Raises ``ClientError`` if tritonclient is not installed."""
    try:
        from triton_diffusers_client.triton.backend import TritonBackend
    except ModuleNotFoundError as error:
        raise ClientError(
            f"{session.address.url} is a Triton without a gateway, which needs tritonclient: "
            "pip install 'triton-diffusers-client[triton]'"
        ) from error
    return TritonBackend(session.address, session.headers, session.attempts)


def requests_of(
    prompts: Iterable[str | Mapping[str, Any]], model: str | None, common: Mapping[str, Any]
) -> list[Request]:
    """Return the request of each prompt, or mapping of a prompt and options; its own options replace common ones.

    Raises ``InvalidRequestError`` if there are none; else as ``Request.build`` does.
    """
    requests = []
    for number, each in enumerate(prompts):
        options = {"prompt": each} if isinstance(each, str) else dict(each)
        if not isinstance(options.get("prompt"), str):
            raise InvalidRequestError.of(f"prompts[{number}]", "a mapping without a prompt", "it must have a prompt")
        prompt = options.pop("prompt")
        requests.append(Request.build(options.pop("model", None) or model, prompt, {**common, **options}))
    if not requests:
        raise InvalidRequestError.of("prompts", "[]", "it must have at least one prompt")
    return requests


def states_of(states: str | Sequence[str]) -> list[JobState]:
    """Return the states with these names. Raises ``ValueError``."""
    names = [states] if isinstance(states, str) else list(states)
    known = [state.value for state in JobState]
    for name in names:
        if name not in known:
            raise ValueError(f"states: {name!r} is invalid: it must be one of {', '.join(known)}")
    return [JobState(name) for name in names]
