"""The field ``webhook`` of a request."""

from __future__ import annotations

from typing import Any

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.job import JobState, NewWebhook
from triton_diffusers.gateway.webhooks.sender import FIELD, WebhookSender

EVENTS = tuple(state.value for state in JobState if state.has_ended)
"""States that a webhook may want."""

_NAMES = frozenset(("url", "events"))

SCHEMA = {
    "description": "URL to call when the job has ended, and the states of interest (default: all).",
    "oneOf": [
        {"type": "string", "format": "uri"},
        {
            "type": "object",
            "properties": {
                "url": {"type": "string", "format": "uri"},
                "events": {"type": "array", "items": {"enum": list(EVENTS)}, "minItems": 1},
            },
            "required": ["url"],
            "additionalProperties": False,
        },
    ],
}


def read_webhook(given: Any, sender: WebhookSender, base_url: str) -> NewWebhook | None:
    """Return the webhook of a request's field: a URL, or an object with ``url`` and ``events``; None for null.

    Raises: InvalidRequest.
    """
    if given is None:
        return None
    document = {"url": given} if isinstance(given, str) else given
    if not isinstance(document, dict) or not document.keys() <= _NAMES:
        raise InvalidRequest("webhook", given, "must be a URL, or an object with url and events")
    url, events = document.get("url"), document.get("events")
    if not isinstance(url, str):
        raise InvalidRequest(FIELD, url, "must be a URL")
    events = EVENTS if events is None else events
    if not isinstance(events, list | tuple) or not events or not all(event in EVENTS for event in events):
        raise InvalidRequest("webhook.events", events, f"must be a list of: {', '.join(EVENTS)}")
    host = sender.target_of(url).host_name
    return NewWebhook(url=url, host=host, events=tuple(JobState(event) for event in events), base_url=base_url)
