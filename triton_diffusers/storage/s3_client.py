"""Clients of S3: Amazon's, or a compatible service.

Credentials come from the usual chain of AWS: variables (AWS_ACCESS_KEY_ID, …), profiles and single sign-on, web
identity, the role of a container or an instance. Temporary ones are renewed. None is ever part of a log line.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from triton_diffusers.settings import PREFIX, Settings, SettingsError

FAULTS = (ClientError, BotoCoreError)
"""Errors that calls of a client raise."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DEFAULT_REGION = "us-east-1"
_TOO_MANY = 429
# Answered with status 4xx, though a retry may succeed.
_TRANSIENT_CODES = frozenset(
    (
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "BadDigest",
        "ConditionalRequestConflict",
        "OperationAborted",
        "SlowDown",
    )
)
_HINTS = {
    "NoSuchBucket": "the bucket does not exist there; check its name and the endpoint",
    "InvalidAccessKeyId": "the service does not know the access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the temporary credentials have expired; name a source that renews them (docs/results.md)",
    "InvalidToken": "check AWS_SESSION_TOKEN; it belongs to one access key",
    "AccessDenied": "the credentials need s3:PutObject, s3:GetObject and s3:DeleteObject below the prefix",
    "PermanentRedirect": f"the bucket is in another region; set {PREFIX}S3_REGION",
    "AuthorizationHeaderMalformed": f"the bucket is in another region; set {PREFIX}S3_REGION",
    "RequestTimeTooSkewed": "set the clock of this machine",
}


def is_bucket_name(name: str) -> bool:
    """Return True if ``name`` can be that of a bucket."""
    return _BUCKET.fullmatch(name) is not None and ".." not in name


def open_client(settings: Settings) -> Any:
    """Return a client; nothing is sent yet. Raises ``SettingsError``, also if there are no credentials."""
    endpoint = settings.s3_endpoint.strip().rstrip("/")
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.username):
        raise SettingsError(f"{PREFIX}S3_ENDPOINT: {endpoint!r} is invalid: expected https://host")
    # Log lines below this level hold signed strings.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    session = botocore.session.get_session()
    try:
        region = settings.s3_region.strip() or session.get_config_variable("region") or _DEFAULT_REGION
        client = session.create_client(
            "s3",
            region_name=region,
            endpoint_url=endpoint or None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=settings.s3_seconds,
                read_timeout=settings.s3_seconds,
                # The store makes the attempts: it has to know of an answer that was lost.
                retries={"total_max_attempts": 1},
                # Newer checksums are unknown to many compatible services; uploads have an MD5.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": settings.s3_addressing},
            ),
        )
        found = session.get_credentials()
    except PartialCredentialsError as error:
        raise SettingsError(f"s3: the credentials are incomplete: {error.kwargs['cred_var']} is missing") from None
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"s3: the settings or the AWS environment are invalid: {type(error).__name__}") from None
    if found is None:
        raise SettingsError("s3: AWS's default chain finds no credentials; set AWS_ACCESS_KEY_ID and its like")
    return client


def public_url(client: Any, bucket: str, prefix: str) -> str:
    """Return the unsigned URL of a prefix, with a slash at its end."""
    signed = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": f"{prefix}x"})
    url = str(signed).partition("?")[0].removesuffix("x")
    # Amazon's global host may only redirect to the region's.
    return url.replace(".s3.amazonaws.com/", f".s3.{client.meta.region_name}.amazonaws.com/", 1)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an answer with an error; 0 if there was no answer."""
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0)) if isinstance(error, ClientError) else 0


def code_of(error: Exception) -> str:
    """Return the service's code of an error, such as ``AccessDenied``; empty if there was no answer."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_transient(error: Exception) -> bool:
    """Return True if the same request may succeed soon."""
    if isinstance(error, ClientError):
        status = status_of(error)
        return status >= 500 or status == _TOO_MANY or code_of(error) in _TRANSIENT_CODES
    return not isinstance(error, NoCredentialsError | PartialCredentialsError | ParamValidationError)


def fault_text(error: Exception) -> str:
    """Return an error's text without secrets; the service's own messages may hold signed strings."""
    if isinstance(error, ClientError):
        request = error.response["ResponseMetadata"].get("RequestId") or "unknown"
        return f"S3 answered {status_of(error)} {code_of(error)} (request {request})"
    if isinstance(error, NoCredentialsError):
        return "there are no credentials any more"
    return f"no answer ({type(error).__name__})"


def hint_of(error: Exception, endpoint: str) -> str:
    """Return a remedy for the operator, or an empty string if none is known."""
    if isinstance(error, ClientError):
        return _HINTS.get(code_of(error), "")
    return f"{endpoint} cannot be reached; check {PREFIX}S3_ENDPOINT, {PREFIX}S3_REGION and the network"
