"""An archive server on 127.0.0.1 that can misbehave: cut connections, change its file, refuse ranges, answer with a web page."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Archive:
    """What is served, and how badly. `asked` collects the Range headers that came (None for a whole file)."""

    body: bytes
    etag: str = '"1"'
    content_type: str = "application/zip"
    status: int = 200
    ranges: bool = True
    length: bool = True
    cut_after: list[int | None] = field(default_factory=list)  # bytes sent before the connection is cut, one an answer; then never
    asked: list[str | None] = field(default_factory=list)

    def serve(self) -> tuple[ThreadingHTTPServer, str]:
        """A running server and the archive's url."""
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_address[1]}/data.zip"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        wanted = to.headers.get("Range")
        self.asked.append(wanted)
        if self.status != 200:
            to.send_error(self.status)
            return
        start = 0
        if wanted and self.ranges and to.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                to.send_response(416)
                to.send_header("Content-Range", f"bytes */{len(self.body)}")
                to.send_header("Content-Length", "0")
                to.end_headers()
                return
        to.send_response(206 if start else 200)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        to.send_header("Content-Type", self.content_type)
        to.send_header("ETag", self.etag)
        if self.length:
            to.send_header("Content-Length", str(len(self.body) - start))
        to.end_headers()
        cut = self.cut_after.pop(0) if self.cut_after else None
        to.wfile.write(self.body[start:] if cut is None else self.body[start : start + cut])
        to.close_connection = True
