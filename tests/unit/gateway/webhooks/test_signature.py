"""Signatures, checked by the specification's own library."""

from __future__ import annotations

import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from triton_diffusers.gateway.webhooks.signature import WebhookSigner

BODY = b'{"type":"job.succeeded"}'


def test_a_receiver_verifies_a_message() -> None:
    signer = WebhookSigner(b"key")
    headers = dict(signer.headers("ann", "0190-a", int(time.time()), BODY))
    assert Webhook(signer.secret("ann")).verify(BODY, headers) == {"type": "job.succeeded"}


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp"])
def test_a_changed_message_is_noticed(changed: str) -> None:
    signer = WebhookSigner(b"key")
    now = int(time.time())
    headers = dict(signer.headers("ann", "0190-a", now, BODY))
    body = BODY
    if changed == "body":
        body = BODY.replace(b"succeeded", b"failed")
    else:
        headers[changed] = {"webhook-id": "0190-b", "webhook-timestamp": str(now - 1)}[changed]
    with pytest.raises(WebhookVerificationError):
        Webhook(signer.secret("ann")).verify(body, headers)


def test_each_owner_and_each_key_has_a_secret_of_its_own() -> None:
    secrets = {WebhookSigner(key).secret(owner) for key in (b"key", b"other") for owner in ("ann", "bob")}
    assert len(secrets) == 4
    assert WebhookSigner(b"key").secret("ann") == WebhookSigner(b"key").secret("ann")
    assert all(secret.startswith("whsec_") for secret in secrets)
