"""Signatures of webhook messages, as the Standard Webhooks specification has them (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

_PREFIX = "whsec_"


class WebhookSigner:
    """Signs the messages of each owner with a secret of that owner's.

    The secrets are derived from the gateways' key: no owner can sign another's messages, all gateways of a fleet sign
    alike, and nothing has to be kept.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def secret(self, owner: str) -> str:
        """Return an owner's secret as receivers take it: ``whsec_`` and base64."""
        return _PREFIX + base64.b64encode(self._secret(owner)).decode()

    def headers(self, owner: str, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
        """Return the headers of one delivery of a message."""
        signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
        signature = hmac.digest(self._secret(owner), signed, "sha256")
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        }

    def _secret(self, owner: str) -> bytes:
        return hmac.digest(self._key, b"webhook:" + hashlib.sha256(owner.encode()).digest(), "sha256")
