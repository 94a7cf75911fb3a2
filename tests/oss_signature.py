"""Signatures of requests to OSS, versions 1 and 4."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from tests.oss_server import OssServer


_CLOCK_SKEW_SECONDS = 900
# Query parameters that a V1 signature covers, as far as this server knows them.
_V1_SUBRESOURCES = frozenset(
    {"objectMeta", "continuation-token", "security-token", "uploads", "uploadId", "partNumber"}
)


class OssError(Exception):
    """An answer with an error document."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Signature:
    """A request's signature and what it has to be, by the published rules."""

    oss: OssServer
    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]

    def check(self) -> None:
        """Raise ``OssError`` unless the request is signed with the server's key, now, for its region."""
        if self.headers.get("x-oss-security-token", "") != self.oss.security_token:
            raise OssError(403, "InvalidSecurityToken")
        given = self.headers.get("authorization", "")
        if v4 := re.fullmatch(
            r"OSS4-HMAC-SHA256 Credential=([^,]+)(?:, ?AdditionalHeaders=([^,]*))?, ?Signature=([0-9a-f]{64})"
            r"(?:, ?AdditionalHeaders=([^,]*))?",
            given,
        ):
            credential, additional, signature, additional_last = v4.groups()
            key_id, _, scope = credential.partition("/")
            expected = self._v4(scope, additional or additional_last or "")
        elif v1 := re.fullmatch(r"OSS ([^:]+):(\S+)", given):
            key_id, signature = v1.groups()
            expected = self._v1()
        else:
            raise OssError(403, "AccessDenied")
        if key_id != self.oss.key_id:
            raise OssError(403, "InvalidAccessKeyId")
        if not hmac.compare_digest(signature, expected):
            raise OssError(403, "SignatureDoesNotMatch")

    def _v1(self) -> str:
        date = self.headers.get("x-oss-date") or self.headers.get("date", "")
        self._check_clock(parsedate_to_datetime(date))
        signed_headers = "".join(
            f"{name}:{value.strip()}\n" for name, value in sorted(self.headers.items()) if name.startswith("x-oss-")
        )
        covered = sorted((name, value) for name, value in self.query.items() if name in _V1_SUBRESOURCES)
        subresources = "&".join(f"{name}={value}" if value else name for name, value in covered)
        resource = f"/{self.bucket}/{self.key}" + (f"?{subresources}" if subresources else "")
        fields = (self.headers.get("content-md5", ""), self.headers.get("content-type", ""), date)
        text = "\n".join((self.method, *fields, signed_headers + resource))
        return base64.b64encode(hmac.digest(self.oss.key_secret.encode(), text.encode(), "sha1")).decode()

    def _v4(self, scope: str, additional: str) -> str:
        moment = self.headers.get("x-oss-date", "")
        self._check_clock(datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
        if scope != f"{moment[:8]}/{self.oss.region}/oss/aliyun_v4_request":
            raise OssError(403, "InvalidArgument")
        extra = sorted(filter(None, additional.lower().split(";")))
        signed_headers = "".join(
            f"{name}:{value.strip()}\n"
            for name, value in sorted(self.headers.items())
            if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in extra
        )
        pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in self.query.items())
        canonical = "\n".join(
            (
                self.method,
                quote(f"/{self.bucket}/{self.key}", safe="/-_.~"),
                "&".join(f"{name}={value}" if value else name for name, value in pairs),
                signed_headers,
                ";".join(extra),
                self.headers.get("x-oss-content-sha256", ""),
            )
        )
        text = "\n".join(("OSS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"aliyun_v4{self.oss.key_secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    @staticmethod
    def _check_clock(signed: datetime) -> None:
        if abs((datetime.now(UTC) - signed).total_seconds()) > _CLOCK_SKEW_SECONDS:
            raise OssError(403, "RequestTimeTooSkewed")
