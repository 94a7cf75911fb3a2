"""A web server with images, for links."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class ImageServer:
    """Serves ``images`` (path → file) on 127.0.0.1; a context manager."""

    def __init__(self, images: Mapping[str, bytes], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                image = images.get(self.path)
                self.send_response(404 if image is None else 200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Content-Length", str(len(image or b"")))
                self.end_headers()
                self.wfile.write(image or b"")

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
