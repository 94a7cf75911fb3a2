"""An object store that speaks enough of S3 for tests: a real HTTP server on a free port of 127.0.0.1.

It answers PutObject, GetObject (with ranges), HeadObject, DeleteObject and ListObjectsV2, path style. What a client
sends is checked as S3 does: the signature (version 4, computed here from the published rules, not by the client's
library), the hash of the body, ``Content-MD5`` and ``If-None-Match``. Faults are planned with ``fail`` and ``hang_up``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

_CLOCK_SKEW_SECONDS = 900
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/s3/aws4_request, *"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True)
class StoredObject:
    data: bytes
    content_type: str
    metadata: dict[str, str]

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass(frozen=True)
class Fault:
    """Fault of one request; ``method`` limits it to requests of that method."""

    method: str | None = None
    status: int = 0
    code: str = "InternalError"
    cut_after: int | None = None  # bytes of the answer's body
    lost_answer: bool = False  # hang up after the request was carried out


class S3Error(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class S3Server:
    """The store, its credentials, what was asked of it, and what is to go wrong. A context manager."""

    key_id: str = "AKIATESTTESTTEST"
    key_secret: str = "test/secret+0123456789"
    session_token: str = ""
    region: str = "eu-central-1"
    conditional: bool = True
    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    page: int = 1000

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._faults: deque[Fault] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> S3Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that carry the credentials."""
        named = {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.key_secret,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return {name: value for name, value in named.items() if value}

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Place an object, and make its bucket if it is not there."""
        with self.lock:
            self.buckets.setdefault(bucket, {})[key] = StoredObject(data, "application/octet-stream", {})

    def keys(self, bucket: str) -> list[str]:
        with self.lock:
            return sorted(self.buckets[bucket])

    def fail(self, status: int, code: str = "InternalError", *, times: int = 1, method: str | None = None) -> None:
        """Answer the next requests with an error."""
        self._faults.extend([Fault(method, status, code)] * times)

    def hang_up(self, *, method: str, after_bytes: int | None = None) -> None:
        """Cut the next answer; without ``after_bytes`` after the work, before the answer."""
        self._faults.append(Fault(method, cut_after=after_bytes, lost_answer=after_bytes is None))

    def next_fault(self, method: str) -> Fault:
        with self.lock:
            for fault in self._faults:
                if fault.method in (None, method):
                    self._faults.remove(fault)
                    return fault
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    store: S3Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.bucket, _, self.key = unquote(parts.path).removeprefix("/").partition("/")
        self.given = {name.lower(): value for name, value in self.headers.items()}
        with self.store.lock:
            self.store.seen.append((self.command, self.key, self.given))
        fault = self.store.next_fault(self.command)
        try:
            if fault.status:
                raise S3Error(fault.status, fault.code)
            _check(self.store, self.command, self.path, self.given, body)
            with self.store.lock:
                status, headers, data = self._carry_out(body)
            if fault.lost_answer:
                self._hang_up()
                return
        except S3Error as error:
            status, headers = error.status, {"Content-Type": "application/xml"}
            # S3, too, tells what it would have had signed, and with which key.
            data = (
                f"<Error><Code>{error.code}</Code><Message>real or planned</Message><AWSAccessKeyId>{self.store.key_id}"
                f"</AWSAccessKeyId><StringToSign>{self.command}</StringToSign></Error>"
            ).encode()
        self.send_response(status)
        for name, value in {"x-amz-request-id": "0123456789ABCDEF", **headers}.items():
            self.send_header(name, value)
        if status != 204 and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD" or status == 204:
            return
        self.wfile.write(data if fault.cut_after is None else data[: fault.cut_after])
        if fault.cut_after is not None:
            self.wfile.flush()
            self._hang_up()

    do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815  # named by http.server

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _carry_out(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        objects = self.store.buckets.get(self.bucket)
        if objects is None:
            raise S3Error(404, "NoSuchBucket")
        if not self.key and self.command == "GET" and self.query.get("list-type") == "2":
            return 200, {"Content-Type": "application/xml"}, self._listing(objects)
        if self.command == "PUT":
            return self._put(objects, body)
        if self.command == "DELETE":
            objects.pop(self.key, None)
            return 204, {}, b""
        return self._get(objects)

    def _put(self, objects: dict[str, StoredObject], body: bytes) -> tuple[int, dict[str, str], bytes]:
        digest = self.given.get("content-md5")
        if digest is not None and digest != base64.b64encode(hashlib.md5(body).digest()).decode():
            raise S3Error(400, "BadDigest")
        if self.store.conditional and self.given.get("if-none-match") == "*" and self.key in objects:
            raise S3Error(412, "PreconditionFailed")
        prefix = "x-amz-meta-"
        metadata = {name: value for name, value in self.given.items() if name.startswith(prefix)}
        objects[self.key] = placed = StoredObject(body, self.given.get("content-type", ""), metadata)
        return 200, {"ETag": placed.etag}, b""

    def _get(self, objects: dict[str, StoredObject]) -> tuple[int, dict[str, str], bytes]:
        found = objects.get(self.key)
        if found is None:
            raise S3Error(404, "NoSuchKey")
        if self.given.get("if-match", found.etag).strip('"') != found.etag.strip('"'):
            raise S3Error(412, "PreconditionFailed")
        data, status = found.data, 200
        headers = {"ETag": found.etag, "Content-Type": found.content_type, **found.metadata}
        if match := re.fullmatch(r"bytes=(\d+)-", self.given.get("range", "")):
            first = int(match[1])
            if first >= len(data) and first:
                raise S3Error(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            data, status = data[first:], 206
        return status, {**headers, "Content-Length": str(len(data))}, data

    def _listing(self, objects: dict[str, StoredObject]) -> bytes:
        after = base64.b64decode(self.query.get("continuation-token", "")).decode()
        keys = [key for key in sorted(objects) if key.startswith(self.query.get("prefix", "")) and key > after]
        page = keys[: self.store.page]
        entries = "".join(
            f"<Contents><Key>{escape(quote(key) if self.query.get('encoding-type') == 'url' else key)}</Key>"
            f"<ETag>{escape(objects[key].etag)}</ETag><Size>{len(objects[key].data)}</Size></Contents>"
            for key in page
        )
        more = len(keys) > len(page)
        token = base64.b64encode(page[-1].encode()).decode() if more else ""
        return (
            f"<ListBucketResult><Name>{self.bucket}</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{f'<NextContinuationToken>{token}</NextContinuationToken>' if more else ''}{entries}</ListBucketResult>"
        ).encode()


def _check(store: S3Server, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    """Raise unless the request is signed with the store's key."""
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if match is None:
        raise S3Error(403, "AccessDenied")
    if match["id"] != store.key_id:
        raise S3Error(403, "InvalidAccessKeyId")
    if headers.get("x-amz-security-token", "") != store.session_token:
        raise S3Error(400, "InvalidToken")
    if match["region"] != store.region:
        raise S3Error(400, "AuthorizationHeaderMalformed")
    date = headers["x-amz-date"]
    sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs((datetime.now(UTC) - sent).total_seconds()) > _CLOCK_SKEW_SECONDS:
        raise S3Error(403, "RequestTimeTooSkewed")
    signed = match["signed"].split(";")
    if "host" not in signed or any(name.startswith("x-amz-") and name not in signed for name in headers):
        raise S3Error(403, "AccessDenied")
    claimed = headers["x-amz-content-sha256"]
    if claimed not in (_UNSIGNED, hashlib.sha256(body).hexdigest()):
        raise S3Error(400, "XAmzContentSHA256Mismatch")
    parts = urlsplit(path)
    query = sorted(parse_qsl(parts.query, keep_blank_values=True))
    canonical = "\n".join(
        (
            method,
            quote(unquote(parts.path), safe="/~"),
            "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed),
            "",
            match["signed"],
            claimed,
        )
    )
    scope = f"{match['date']}/{store.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{store.key_secret}".encode()
    for part in (match["date"], store.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.new(key, f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}".encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, match["signature"]):
        raise S3Error(403, "SignatureDoesNotMatch")
