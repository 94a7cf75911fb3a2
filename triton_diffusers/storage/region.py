"""Names of OSS's regions."""

from __future__ import annotations

import re

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# A region as consoles and documents write it: with the service's name, as a host, or as an internal host.
_SHOWN_REGION = re.compile(r"(?:https?://)?(?:oss-)?(?P<region>.*?)(?:-internal)?(?:\.aliyuncs\.com)?/?")


def region_name(value: str) -> str:
    """Return OSS's own name of a region; ``hangzhou`` is short for ``cn-hangzhou``, and empty stays empty.

    Raises: ValueError: it is not the name of a region.
    """
    shown = _SHOWN_REGION.fullmatch(value.strip().lower())
    region = shown["region"] if shown else ""
    if not region and not value.strip():
        return ""
    if not _REGION.fullmatch(region):
        raise ValueError("the bucket's region, as cn-hangzhou")
    return region if "-" in region else f"cn-{region}"
