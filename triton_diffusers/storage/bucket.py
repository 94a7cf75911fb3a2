"""Buckets of Alibaba Cloud's Object Storage Service: endpoints, credentials, and hints for refused requests.

Credentials come from the environment (OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and, for a session, OSS_SESSION_TOKEN),
else from Alibaba Cloud's default chain, which renews them before they expire.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import oss2
import requests
from alibabacloud_credentials.provider import DefaultCredentialsProvider

from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.region import region_name

logger = logging.getLogger(__name__)

FAULTS = (oss2.exceptions.OssError, requests.RequestException)
"""Errors that calls of a bucket raise."""

_KEY_ID, _KEY_SECRET = "OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"
_DOMAIN = "aliyuncs.com"
_OSS_HOST = re.compile(r"(?:(?P<bucket>[^.]+)\.)?oss-(?P<region>[a-z0-9-]+?)(?P<internal>-internal)?\.aliyuncs\.com")
_NO_REGION = ("accelerate", "accelerate-overseas")  # endpoints of all regions
_HINTS = {
    "NoSuchBucket": "the bucket does not exist at this endpoint; check its name and region",
    "InvalidBucketName": "that is not the name of a bucket",
    "InvalidAccessKeyId": f"OSS does not know the access key; check {_KEY_ID}",
    "SignatureDoesNotMatch": f"check {_KEY_SECRET}, and that {PREFIX}OSS_REGION is the bucket's region",
    "SecurityTokenExpired": "the temporary credentials have expired; name a source that renews them (docs/results.md)",
    "InvalidSecurityToken": "check OSS_SESSION_TOKEN; it belongs to one access key",
    "AccessDenied": "the credentials need oss:PutObject, oss:GetObject and oss:DeleteObject below the prefix",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "UserDisable": "the account is disabled, or its bills are overdue",
}


@dataclass(frozen=True, slots=True)
class OssAddress:
    """A bucket's region and endpoint in OSS's form: ``cn-hangzhou``, ``https://oss-cn-hangzhou.aliyuncs.com``."""

    region: str
    endpoint: str

    @classmethod
    def of(cls, bucket: str, settings: Settings) -> OssAddress:
        """Read the settings ``oss_region`` and ``oss_endpoint`` in their common spellings.

        Raises: SettingsError: they do not name exactly one address.
        """
        region = _region(settings.oss_region)
        endpoint = settings.oss_endpoint.strip()
        if not endpoint:
            if not region:
                raise SettingsError(_invalid("OSS_REGION", settings.oss_region, "the bucket's region, as cn-hangzhou"))
            return cls(region, f"https://oss-{region}.{_DOMAIN}")
        scheme, host, port = _parts(endpoint)
        if found := _OSS_HOST.fullmatch(host):
            if found["bucket"] not in (None, bucket):
                raise SettingsError(_invalid("OSS_ENDPOINT", endpoint, f"it is of the bucket {found['bucket']}"))
            host = host.removeprefix(f"{bucket}.")
            its_region = "" if found["region"] in _NO_REGION else found["region"]
            if region and its_region and region != its_region:
                raise SettingsError(
                    _invalid("OSS_ENDPOINT", endpoint, f"it is not in {PREFIX}OSS_REGION={settings.oss_region}")
                )
            region = region or its_region
            if scheme == "http":
                logger.warning(
                    "%sOSS_ENDPOINT: %s is not encrypted; write https:// unless it must be", PREFIX, endpoint
                )
        if not region:
            raise SettingsError(_invalid("OSS_REGION", settings.oss_region, "the bucket's region, as cn-hangzhou"))
        return cls(region, f"{scheme}://{host}{port}")


def open_bucket(name: str, settings: Settings) -> Any:
    """Return the bucket, an ``oss2.Bucket``; nothing is sent yet. Raises ``SettingsError``."""
    credentials, address = _credentials(name), OssAddress.of(name, settings)
    # Log lines below this level hold key ids, session tokens and signed strings.
    logging.getLogger("oss2").setLevel(logging.WARNING)
    try:
        return oss2.Bucket(
            oss2.ProviderAuthV4(credentials),
            address.endpoint,
            name,
            region=address.region,
            connect_timeout=settings.oss_seconds,
        )
    except oss2.exceptions.ClientError:
        raise SettingsError(_invalid("OSS_ENDPOINT", settings.oss_endpoint, "expected https://host")) from None


def fault_text(error: Exception) -> str:
    """Return an error's text without secrets; OSS's own messages may hold signed strings."""
    if isinstance(error, oss2.exceptions.RequestError):
        return f"no answer ({type(error.exception).__name__})"
    if isinstance(error, oss2.exceptions.InconsistentError):
        return "it was damaged on the way (CRC64)"
    if isinstance(error, oss2.exceptions.OssError):
        return f"OSS answered {error.status} {error.code} (request {error.request_id or 'unknown'})"
    return f"no answer ({type(error).__name__})"


def hint_of(error: Exception, endpoint: str) -> str:
    """Return a remedy for the operator, or an empty string if none is known."""
    if isinstance(error, oss2.exceptions.ServerError):
        # OSS sends this if the bucket is in another region.
        if right := (error.details or {}).get("Endpoint"):
            return f"the bucket is at {right}; set {PREFIX}OSS_ENDPOINT={right}, and its region"
        return _HINTS.get(error.code, "")
    if "-internal." in endpoint:
        return (
            "internal endpoints answer only inside Alibaba Cloud, in their own region; elsewhere, leave -internal out"
        )
    return f"{endpoint} cannot be reached; check {PREFIX}OSS_REGION, {PREFIX}OSS_ENDPOINT and the network"


class _DefaultChain(oss2.credentials.CredentialsProvider):  # type: ignore[misc]
    """Alibaba Cloud's default chain: its variables and files, OIDC, the role of an ECS instance, a URI."""

    def __init__(self) -> None:
        self._chain = DefaultCredentialsProvider()

    def get_credentials(self) -> Any:
        try:
            found = self._chain.get_credentials()
        except Exception as error:  # the library passes its transports' errors on
            raise oss2.exceptions.RequestError(error) from error
        return oss2.credentials.Credentials(
            found.get_access_key_id(), found.get_access_key_secret(), found.get_security_token() or ""
        )


def _credentials(bucket: str) -> Any:
    """Return the provider of each request's credentials. Raises ``SettingsError`` if none is configured."""
    given = [name for name in (_KEY_ID, _KEY_SECRET) if os.environ.get(name)]
    if len(given) == 2:
        return oss2.credentials.EnvironmentVariableCredentialsProvider()
    if given:
        missing = _KEY_SECRET if given == [_KEY_ID] else _KEY_ID
        raise SettingsError(f"{missing} is not set in the environment; oss://{bucket} needs it")
    chain = _DefaultChain()
    try:
        chain.get_credentials()
    except oss2.exceptions.RequestError:
        raise SettingsError(
            f"{_KEY_ID} is not set in the environment, and Alibaba Cloud's default chain finds no credentials; "
            f"oss://{bucket} needs them"
        ) from None
    return chain


def _region(value: str) -> str:
    """Return OSS's own name of a region. Raises ``SettingsError``."""
    try:
        return region_name(value)
    except ValueError as error:
        raise SettingsError(_invalid("OSS_REGION", value, str(error))) from None


def _parts(endpoint: str) -> tuple[str, str, str]:
    """Return scheme, host and ``:port`` of an endpoint. Raises ``SettingsError``."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.username:
        raise SettingsError(_invalid("OSS_ENDPOINT", endpoint, "expected https://host"))
    if "." not in host and ":" not in host and "-" in host:  # a region
        host = f"oss-{host.removeprefix('oss-')}.{_DOMAIN}"
    return parts.scheme, f"[{host}]" if ":" in host else host, f":{port}" if port else ""


def _invalid(setting: str, value: str, rule: str) -> str:
    return f"{PREFIX}{setting}: {value!r} is invalid: {rule}"
