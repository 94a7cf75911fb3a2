"""Buckets of Alibaba Cloud's Object Storage Service, as the settings name their region and endpoint.

Credentials are in the environment: OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and, for a session, OSS_SESSION_TOKEN.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import oss2

from triton_diffusers.settings import PREFIX, Settings, SettingsError


def open_bucket(name: str, settings: Settings) -> Any:
    """The bucket, an ``oss2.Bucket``. Nothing is sent yet. Raises ``SettingsError``."""
    for variable in ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"):
        if not os.environ.get(variable):
            raise SettingsError(f"{variable} is not set in the environment; oss://{name} needs it")
    region = region_of(settings)
    endpoint = settings.oss_endpoint or f"https://oss-{region}.aliyuncs.com"
    # Its lines below this level hold key ids, session tokens and what was signed.
    logging.getLogger("oss2").setLevel(logging.WARNING)
    try:
        return oss2.Bucket(
            # Reads the environment each time; OSS_SESSION_TOKEN too.
            oss2.ProviderAuthV4(oss2.credentials.EnvironmentVariableCredentialsProvider()),
            endpoint if "://" in endpoint else f"https://{endpoint}",
            name,
            region=region,
            connect_timeout=settings.oss_seconds,
        )
    except oss2.exceptions.ClientError:
        raise SettingsError(f"{PREFIX}OSS_ENDPOINT: {endpoint!r} does not fit: https://host is expected") from None


def region_of(settings: Settings) -> str:
    """OSS's own name of the region; ``hangzhou`` is short for ``cn-hangzhou``. Raises ``SettingsError``."""
    region = settings.oss_region
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", region):
        raise SettingsError(f"{PREFIX}OSS_REGION: {region!r} does not fit: the bucket's region, such as cn-hangzhou")
    return region if "-" in region else f"cn-{region}"
