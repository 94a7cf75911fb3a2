"""Objects of a bucket: their listing, and ranges of their bytes."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it is in its bucket."""

    data: bytes
    content_type: str
    modified: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest().upper()}"'


def range_of(header: str, size: int) -> tuple[int, int]:
    """First and last byte that a Range header asks for; the whole object where it makes no sense, as OSS does."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    whole = 0, size - 1
    if not match or match.groups() == ("", ""):
        return whole
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    begin, end = int(first), min(int(last), size - 1) if last else size - 1
    return (begin, end) if begin <= end else whole


def listing(bucket: str, objects: dict[str, StoredObject], query: dict[str, str]) -> bytes:
    """Return the answer to ListObjectsV2."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("start-after", "")
    if token := query.get("continuation-token"):
        after = base64.b64decode(token).decode()
    most = int(query.get("max-keys", 100))
    entries: list[tuple[str, StoredObject | None]] = []  # None: a common prefix
    for key in sorted(objects):
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        name = key if end < 0 else key[: end + len(delimiter)]
        if key.startswith(prefix) and name > after and (not entries or entries[-1][0] != name):
            entries.append((name, objects[key] if end < 0 else None))
    page = entries[:most]

    def shown(text: str) -> str:
        return escape(quote(text, safe="") if query.get("encoding-type") == "url" else text)

    parts = [
        f"<Name>{bucket}</Name><Prefix>{shown(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>",
        f"<Delimiter>{shown(delimiter)}</Delimiter><KeyCount>{len(page)}</KeyCount>",
        "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else "",
        f"<IsTruncated>{'true' if len(entries) > most else 'false'}</IsTruncated>",
    ]
    if len(entries) > most:
        token = base64.b64encode(page[-1][0].encode()).decode()
        parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    for name, stored in page:
        if stored is None:
            parts.append(f"<CommonPrefixes><Prefix>{shown(name)}</Prefix></CommonPrefixes>")
            continue
        modified = datetime.fromtimestamp(stored.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        parts.append(
            f"<Contents><Key>{shown(name)}</Key><LastModified>{modified}</LastModified><ETag>{escape(stored.etag)}</ETag>"
            f"<Type>Normal</Type><Size>{len(stored.data)}</Size><StorageClass>Standard</StorageClass></Contents>"
        )
    return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>{"".join(parts)}</ListBucketResult>'.encode()
