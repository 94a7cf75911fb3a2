"""Local hubs with the parts of the Hugging Face hub and of ModelScope that their clients use."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE_BYTES = 1000  # from this size on a file is stored as in LFS, by its SHA-256


class Hub:
    """A repository with a record of requests and planned faults. A context manager."""

    def __init__(self, files: dict[str, bytes], name: str = "owner/name") -> None:
        self.name = name
        self.stored = dict(files)
        self.ranges: list[tuple[str, str]] = []  # path, Range header; of requests for content
        self.listings = 0
        self.break_after: dict[str, int] = {}  # path → bytes until the connection is cut, once
        self.damaged: set[str] = set()
        self.ignores_ranges = False
        self.status = 0
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def commit(self) -> str:
        """Return a commit id that is different for each state of the files."""
        return hashlib.sha1(repr(sorted(self.stored.items())).encode()).hexdigest()

    def requested_ranges(self, path: str) -> list[str]:
        """Return the Range headers of the requests for a file."""
        return [header for name, header in self.ranges if name == path]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if self.hub.status:
            self._answer(self.hub.status, b"{}")
        elif path.startswith(f"/api/v1/models/{self.hub.name}/repo"):
            self._modelscope(path, query)
        elif path.startswith(f"/api/models/{self.hub.name}"):
            self._huggingface(path)
        elif path.startswith(f"/{self.hub.name}/resolve/"):
            self._content(path.split("/", 5)[5], commit=True)
        else:
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._answer(404, b"{}", headers)

    def _modelscope(self, path: str, query: dict[str, list[str]]) -> None:
        if path.endswith("/files"):
            self.hub.listings += 1
            entries: list[dict[str, Any]] = [{"Path": "unet", "Type": "tree", "Size": 0}]
            for name, data in self.hub.stored.items():
                entries.append({"Path": name, "Type": "blob", "Size": len(data), "Sha256": _sha256(data)})
            self._json({"Code": 200, "Data": {"Files": entries}})
        else:
            self._content(query["FilePath"][0], commit=False)

    def _huggingface(self, path: str) -> None:
        self.hub.listings += 1
        entries = []
        for name, data in self.hub.stored.items():
            entry: dict[str, Any] = {"type": "file", "path": name, "rfilename": name, "size": len(data)}
            entry["oid"] = entry["blobId"] = _blob(data)
            if len(data) >= _LARGE_BYTES:
                digest = _sha256(data)
                entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 100}
            entries.append(entry)
        if "/tree/" in path:
            self._json(entries)
        else:
            self._json(
                {
                    "_id": "1",
                    "id": self.hub.name,
                    "sha": self.hub.commit,
                    "siblings": entries,
                    "tags": [],
                    "private": False,
                }
            )

    def _content(self, name: str, *, commit: bool) -> None:
        data = self.hub.stored.get(name)
        if data is None:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        etag = _sha256(data) if len(data) >= _LARGE_BYTES else _blob(data)
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if commit:
            headers["X-Repo-Commit"] = self.hub.commit
        if name in self.hub.damaged:
            data = bytes(byte ^ 1 for byte in data)
        status, start = 200, 0
        wanted = self.headers.get("Range", "")
        if self.command == "GET":
            self.hub.ranges.append((name, wanted))
            if wanted and not self.hub.ignores_ranges:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(
            status, data[start:], headers, self.hub.break_after.pop(name, None) if self.command == "GET" else None
        )

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, break_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if break_after is None else body[:break_after])
        if break_after is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
