"""An object store that speaks enough of OSS for tests: a real HTTP server on a free port of 127.0.0.1.

    with OssServer() as server:
        server.put("a-bucket", "a/key", b"data")
        auth = oss2.AuthV4(server.key_id, server.key_secret)
        bucket = oss2.Bucket(auth, server.endpoint, "a-bucket", region=server.region)

It answers PutObject, GetObject (with ranges), HeadObject, DeleteObject and ListObjectsV2, path style (as clients
address a bare IP). What a client sends is checked as OSS does: the signature (V1 or V4, computed here from the
published rules, not by the client's library), ``Content-MD5``, and ``x-oss-forbid-overwrite``. Faults are planned with
``fail``, ``hang_up``, ``delay`` and ``corrupt_crc``.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import crcmod

from tests.oss_objects import StoredObject, listing, range_of
from tests.oss_signature import OssError, Signature

crc64_of = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=0xFFFFFFFFFFFFFFFF, rev=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came in, whatever was answered."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault of one request; ``method`` limits it to requests of that method."""

    method: str | None = None
    status: int = 0
    code: str = "InternalError"
    endpoint: str = ""
    delay_seconds: float = 0.0
    hang_up_after: int | None = None  # bytes of the body, sent or received
    hang_up_stored: bool = False  # hang up in place of the answer, after the request was carried out
    wrong_crc: bool = False


class OssServer:
    """The store, its credentials, what was asked of it, and what is to go wrong. A context manager."""

    def __init__(
        self,
        *,
        key_id: str = "LTAI-test-id",
        key_secret: str = "test+secret/0123456789=",
        security_token: str = "",
        region: str = "cn-hangzhou",
    ) -> None:
        self.key_id = key_id
        self.key_secret = key_secret
        self.security_token = security_token
        self.region = region
        self.buckets: dict[str, dict[str, StoredObject]] = {}
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self._faults: deque[Fault] = deque()
        store = self

        class Handler(_Handler):
            oss = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> OssServer:
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
            "OSS_ACCESS_KEY_ID": self.key_id,
            "OSS_ACCESS_KEY_SECRET": self.key_secret,
            "OSS_SESSION_TOKEN": self.security_token,
        }
        return {name: value for name, value in named.items() if value}

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Place an object, and make its bucket if it is not there."""
        with self.lock:
            self.buckets.setdefault(bucket, {})[key] = StoredObject(data, content_type)

    def keys(self, bucket: str) -> list[str]:
        with self.lock:
            return sorted(self.buckets[bucket])

    def data(self, bucket: str, key: str) -> bytes:
        with self.lock:
            return self.buckets[bucket][key].data

    def count(self, method: str) -> int:
        """How many requests of a method came in."""
        with self.lock:
            return sum(seen.method == method for seen in self.seen)

    def fail(
        self,
        status: int = 500,
        *,
        times: int = 1,
        code: str = "InternalError",
        method: str | None = None,
        endpoint: str = "",
    ) -> None:
        """Answer the next requests with an error; ``endpoint`` is the one that OSS says to use instead."""
        self._plan(Fault(method, status=status, code=code, endpoint=endpoint), times)

    def hang_up(self, *, after_bytes: int = 0, stored: bool = False, times: int = 1, method: str | None = None) -> None:
        """Cut the next connections in the middle of the body; ``stored``: after the work, before the answer."""
        self._plan(Fault(method, hang_up_after=None if stored else after_bytes, hang_up_stored=stored), times)

    def delay(self, seconds: float, *, times: int = 1, method: str | None = None) -> None:
        """Answer the next requests late."""
        self._plan(Fault(method, delay_seconds=seconds), times)

    def corrupt_crc(self, *, times: int = 1, method: str | None = None) -> None:
        """Report a wrong CRC64 of the next objects, as if they had been damaged on the way."""
        self._plan(Fault(method, wrong_crc=True), times)

    def _plan(self, fault: Fault, times: int) -> None:
        with self.lock:
            self._faults.extend([fault] * times)

    def next_fault(self, method: str) -> Fault:
        """Return the fault for a request, which is used up by it."""
        with self.lock:
            for fault in self._faults:
                if fault.method in (None, method):
                    self._faults.remove(fault)
                    return fault
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    oss: OssServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET  # noqa: N815  # named by http.server

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.bucket, _, self.key = unquote(parts.path).removeprefix("/").partition("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.oss.lock:
            self.oss.seen.append(Seen(self.command, self.bucket, self.key, self.query, headers))
        self.fault = self.oss.next_fault(self.command)
        body = self._body()
        if body is None:
            return
        time.sleep(self.fault.delay_seconds)
        try:
            if self.fault.status:
                raise OssError(self.fault.status, self.fault.code)
            Signature(self.oss, self.command, self.bucket, self.key, self.query, headers).check()
            status, answer_headers, data = self._carry_out(headers, body)
            if self.fault.hang_up_stored:
                self._hang_up()
                return
        except OssError as error:
            # OSS, too, tells what it would have had signed, and with which key.
            text = (
                f"<Error><Code>{error.code}</Code><Message>planned or real: {error.code}</Message>"
                f"<Endpoint>{self.fault.endpoint}</Endpoint>"
                f"<OSSAccessKeyId>{self.oss.key_id}</OSSAccessKeyId><StringToSign>{self.command}</StringToSign></Error>"
            )
            status, answer_headers, data = error.status, {"Content-Type": "application/xml"}, text.encode()
        self._send(status, answer_headers, data)

    def _body(self) -> bytes | None:
        """Return the request's body; None when the connection was cut on purpose."""
        limit = self.fault.hang_up_after if self.command == "PUT" else None
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        else:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length if limit is None else min(limit, length))
        if limit is None:
            return body
        self._hang_up()
        return None

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {"x-oss-request-id": "0123456789ABCDEF", **headers}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
        self.end_headers()
        if self.command == "HEAD" or status == 204:
            return
        cut = self.fault.hang_up_after
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self._hang_up()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and any(b"Content-Length" in line for line in self._headers_buffer):
            return
        super().send_header(keyword, value)

    def _carry_out(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self.oss.lock:
            objects = self.oss.buckets.get(self.bucket)
            if objects is None:
                raise OssError(404, "NoSuchBucket")
            if not self.key and self.command == "GET" and self.query.get("list-type") == "2":
                return 200, {"Content-Type": "application/xml"}, listing(self.bucket, objects, self.query)
            if self.command == "PUT":
                return self._put(objects, headers, body)
            if self.command == "DELETE":
                objects.pop(self.key, None)
                return 204, {}, b""
            if self.command in ("GET", "HEAD"):
                return self._get(objects, headers)
        raise OssError(400, "NotImplemented")

    def _put(
        self, objects: dict[str, StoredObject], headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        digest = headers.get("content-md5")
        if digest is not None and digest != base64.b64encode(hashlib.md5(body).digest()).decode():
            raise OssError(400, "InvalidDigest")
        if headers.get("x-oss-forbid-overwrite") == "true" and self.key in objects:
            raise OssError(409, "FileAlreadyExists")
        placed = StoredObject(body, headers.get("content-type", "application/octet-stream"))
        objects[self.key] = placed
        return 200, {"ETag": placed.etag, "x-oss-hash-crc64ecma": self._crc(placed)}, b""

    def _get(self, objects: dict[str, StoredObject], headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        found = objects.get(self.key)
        if found is None:
            raise OssError(404, "NoSuchKey")
        if "if-match" in headers and headers["if-match"] != found.etag:
            raise OssError(412, "PreconditionFailed")
        answer = {
            "ETag": found.etag,
            "Content-Type": found.content_type,
            "Last-Modified": formatdate(found.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "x-oss-object-type": "Normal",
            "x-oss-hash-crc64ecma": self._crc(found),
        }
        first, last = range_of(headers.get("range", ""), len(found.data))
        data = found.data[first : last + 1]
        status = 200
        if len(data) != len(found.data):
            status = 206
            answer["Content-Range"] = f"bytes {first}-{last}/{len(found.data)}"
        answer["Content-Length"] = str(len(data))
        return status, answer, data

    def _crc(self, stored: StoredObject) -> str:
        return str(crc64_of(stored.data) ^ self.fault.wrong_crc)
